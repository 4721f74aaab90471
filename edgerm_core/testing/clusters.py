"""A cluster in memory for schedulers to be tried on: it changes, keeps the books, and shows a snapshot.

`Cluster` does what the master does around a scheduler: it notes what changed between two calls, checks
every decision in order against what is free then, and takes over those that fit. `run` calls a
scheduler until it has no more decisions; `replay` gives every single decision with the books before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from edgerm_core.agents import UNLIMITED_TASKS, AgentInfo
from edgerm_core.attributes import Attributes
from edgerm_core.feasibility import check
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, Placement, Scheduler
from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.resources import (
    UNIT,
    Device,
    DeviceRequest,
    ResourceRequest,
    Resources,
    add_scalars,
    subtract_scalars,
)
from edgerm_core.tasks import Implementation, TaskSpec

MAX_CALLS: Final = 100_000
"""Calls `run` makes before it says that a scheduler never comes to an end."""

_versions: Iterator[int] = itertools.count(1)
"""An agent that goes and comes back between two calls must not show the version it had before."""


class ClusterAgent:
    """An agent of the cluster; an `interfaces.AgentView`."""

    def __init__(self, info: AgentInfo) -> None:
        self.id = info.id
        self.static_version = 0
        self.devices: Mapping[str, Device] = {}
        self.executors: frozenset[str] = frozenset()
        self.max_message_bytes = MAX_MESSAGE_BYTES
        self.attributes: Attributes = {}
        self.totals = Resources()
        self.held = Resources()
        self.free = Resources()
        self.max_tasks = 0
        self.tasks = 0
        self.update(info)

    @property
    def tasks_left(self) -> int:
        """How many more tasks it takes."""
        return max(0, (self.max_tasks or UNLIMITED_TASKS) - self.tasks)

    def update(self, info: AgentInfo) -> None:
        """Take over other static facts."""
        self.static_version = next(_versions)
        self.devices = {device.id: device for device in info.devices}
        self.executors = frozenset(f.name for f in info.executors if f.healthy)
        self.attributes = dict(info.attributes)
        self.max_tasks = info.max_tasks
        slots = {device.id: device.slots for device in info.devices if device.healthy}
        self.totals = Resources(info.totals.scalars, info.totals.ranges, info.totals.sets, slots)
        self.free = self.totals.minus_at_most(self.held)

    def take(self, granted: Resources) -> None:
        """Somebody holds this now."""
        self.held = self.held + granted
        self.free = self.totals.minus_at_most(self.held)

    def give_back(self, granted: Resources) -> None:
        """Nobody holds this any more."""
        self.held = self.held - granted
        self.free = self.totals.minus_at_most(self.held)

    def quantities(self, resources: Resources) -> dict[str, int]:
        """Return amounts by name in 1/1000, devices as `device/<type>`."""
        amounts = resources.quantities()
        for device_id, slots in resources.devices.items():
            if device_id in self.devices:
                key = f"device/{self.devices[device_id].type}"
                amounts[key] = amounts.get(key, 0) + slots * UNIT
        return amounts


class ClusterTask:
    """A task of the cluster; an `interfaces.TaskView`."""

    __slots__ = ("avoid", "framework_id", "id", "spec")

    def __init__(self, task_id: TaskId, framework_id: FrameworkId, spec: TaskSpec) -> None:
        self.id = task_id
        self.framework_id = framework_id
        self.spec = spec
        self.avoid: frozenset[AgentId] = frozenset()


class ClusterFramework:
    """A framework of the cluster; an `interfaces.FrameworkView`."""

    def __init__(self, framework_id: FrameworkId, role: str, weight: int, wants_offers: bool) -> None:
        self.id = framework_id
        self.role = role
        self.weight = weight
        self.wants_offers = wants_offers
        self.allocated: dict[str, int] = {}
        self.allocations = 0
        self.waiting: dict[TaskId, ClusterTask] = {}

    @property
    def pending(self) -> Iterable[ClusterTask]:
        """Waiting tasks, oldest first."""
        return self.waiting.values()

    @property
    def pending_count(self) -> int:
        """How many tasks wait."""
        return len(self.waiting)


class Holding:
    """What a placed task or an offer holds."""

    __slots__ = ("agent_id", "amounts", "framework_id", "granted", "task")

    def __init__(
        self,
        framework_id: FrameworkId,
        agent_id: AgentId,
        granted: Resources,
        amounts: dict[str, int],
        task: ClusterTask | None,
    ) -> None:
        self.framework_id = framework_id
        self.agent_id = agent_id
        self.granted = granted
        self.amounts = amounts
        self.task = task


class ClusterSnapshot:
    """What a scheduler sees; an `interfaces.Snapshot`."""

    def __init__(self, cluster: Cluster, complete: bool) -> None:
        self._cluster = cluster
        self.complete = complete
        self.now = cluster.now
        self.totals: Mapping[str, int] = cluster.totals
        self.agents: Mapping[AgentId, ClusterAgent] = cluster.agents
        self.frameworks: Mapping[FrameworkId, ClusterFramework] = cluster.frameworks
        if complete:
            self.agent_changes = frozenset(cluster.agents)
            self.framework_changes = frozenset(cluster.frameworks)
            self.task_changes = frozenset(cluster.waiting)
        else:
            self.agent_changes = frozenset(cluster.agent_changes)
            self.framework_changes = frozenset(cluster.framework_changes)
            self.task_changes = frozenset(cluster.task_changes)

    def pending_task(self, task_id: TaskId) -> ClusterTask | None:
        """Return the task if it waits."""
        return self._cluster.waiting.get(task_id)

    def refused(self, framework_id: FrameworkId, agent_id: AgentId, free: Resources) -> bool:
        """Return whether a filter of the framework contains what is free there."""
        return any(
            until > self.now and refused.contains(free)
            for refused, until in self._cluster.filters.get((framework_id, agent_id), ())
        )


class Cluster:
    """Agents, frameworks, tasks and who holds what. Not thread-safe; time stands still unless set.

    Attributes:
        now: seconds, what snapshots show.
        holdings: what is held, by a number; tasks under their own id.
        filters: refused resources and until when, by framework and agent.
        refusals: decisions that did not fit, each with a sentence.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.totals: dict[str, int] = {}
        self.agents: dict[AgentId, ClusterAgent] = {}
        self.frameworks: dict[FrameworkId, ClusterFramework] = {}
        self.waiting: dict[TaskId, ClusterTask] = {}
        self.holdings: dict[int, Holding] = {}
        self.filters: dict[tuple[FrameworkId, AgentId], list[tuple[Resources, float]]] = {}
        self.refusals: list[str] = []
        self.agent_changes: set[AgentId] = set()
        self.framework_changes: set[FrameworkId] = set()
        self.task_changes: set[TaskId] = set()
        self._next_task = 1
        self._next_offer = -1

    # --- what happens to the cluster ----------------------------------------------------------

    def add_agent(self, info: AgentInfo) -> ClusterAgent:
        """Let an agent come, or change its static facts."""
        agent = self.agents.get(info.id)
        if agent is None:
            agent = self.agents[info.id] = ClusterAgent(info)
        else:
            self._add_totals(agent, -1)
            agent.update(info)
        self._add_totals(agent, 1)
        self.agent_changes.add(info.id)
        return agent

    def remove_agent(self, agent_id: AgentId) -> None:
        """Let an agent go; what its tasks held is nobody's, and they do not wait again."""
        agent = self.agents.pop(agent_id)
        self._add_totals(agent, -1)
        self.agent_changes.add(agent_id)
        for number in [n for n, h in self.holdings.items() if h.agent_id == agent_id]:
            self._uncharge(self.holdings.pop(number))

    def add_framework(
        self, name: str, *, role: str = "", weight: int = 1000, wants_offers: bool = False
    ) -> FrameworkId:
        """Let a framework come."""
        framework_id = FrameworkId(name)
        self.frameworks[framework_id] = ClusterFramework(framework_id, role, weight, wants_offers)
        self.framework_changes.add(framework_id)
        return framework_id

    def remove_framework(self, framework_id: FrameworkId) -> None:
        """Let a framework go, with all it waits for and holds."""
        for number in [n for n, h in self.holdings.items() if h.framework_id == framework_id]:
            self.end(number)
        for task_id in list(self.frameworks[framework_id].waiting):
            self.withdraw(task_id)
        del self.frameworks[framework_id]
        self.framework_changes.add(framework_id)

    def submit(self, framework_id: FrameworkId, spec: TaskSpec, count: int = 1) -> list[TaskId]:
        """Let tasks wait; returns their ids."""
        framework = self.frameworks[framework_id]
        task_ids: list[TaskId] = []
        for _ in range(count):
            task = ClusterTask(TaskId(self._next_task), framework_id, spec)
            self._next_task += 1
            self.waiting[task.id] = framework.waiting[task.id] = task
            task_ids.append(task.id)
        self.task_changes.update(task_ids)
        return task_ids

    def withdraw(self, task_id: TaskId) -> None:
        """Let a task wait no more."""
        task = self.waiting.pop(task_id)
        del self.frameworks[task.framework_id].waiting[task_id]
        self.task_changes.add(task_id)

    def avoid(self, task_id: TaskId, agent_ids: Iterable[AgentId]) -> None:
        """Say where a waiting task has failed."""
        self.waiting[task_id].avoid = frozenset(agent_ids)
        self.task_changes.add(task_id)

    def end(self, number: int) -> None:
        """A task ended or an offer came back: what it held is free again."""
        holding = self.holdings.pop(number)
        agent = self.agents[holding.agent_id]
        agent.give_back(holding.granted)
        agent.tasks -= holding.task is not None
        self.agent_changes.add(holding.agent_id)
        self._uncharge(holding)

    def decline(self, number: int, refuse_s: float) -> None:
        """An offer came back with a filter of that many seconds."""
        holding = self.holdings[number]
        filters = self.filters.setdefault((holding.framework_id, holding.agent_id), [])
        filters.append((holding.granted, self.now + refuse_s))
        self.end(number)

    # --- what schedulers see and do -----------------------------------------------------------

    def snapshot(self, *, complete: bool = False) -> ClusterSnapshot:
        """Return what a scheduler sees now. The changes stay noted until `forget_changes`."""
        return ClusterSnapshot(self, complete)

    def forget_changes(self) -> None:
        """The scheduler has seen what changed so far."""
        self.agent_changes.clear()
        self.framework_changes.clear()
        self.task_changes.clear()

    def step(self, scheduler: Scheduler, *, complete: bool = False) -> list[Decision]:
        """Call the scheduler once and take over its decisions; returns those that fitted."""
        decisions = scheduler.schedule(self.snapshot(complete=complete))
        self.forget_changes()
        return [decision for decision in decisions if self.apply(decision)]

    def run(self, scheduler: Scheduler, *, complete: bool = False) -> list[Decision]:
        """Call the scheduler until it has no more decisions; returns those that fitted.

        Parameters:
            complete: make the first snapshot a complete one.
        """
        done: list[Decision] = []
        for _ in range(MAX_CALLS):
            decisions = self.step(scheduler, complete=complete)
            complete = False
            if not decisions:
                return done
            done += decisions
        raise AssertionError(f"{type(scheduler).__name__} still had decisions after {MAX_CALLS} calls")

    def replay(self, decisions: Sequence[Decision]) -> Iterator[Decision]:
        """Yield each decision with the books as they are before it, then take it over.

        Raises:
            AssertionError: if one does not fit.
        """
        for decision in decisions:
            yield decision
            assert self.apply(decision), self.refusals[-1]

    def apply(self, decision: Decision) -> bool:
        """Take over a decision if it fits; returns whether it did."""
        agent = self.agents.get(decision.agent_id)
        if agent is None:
            return self._refuse(f"{decision}: no such agent")
        if isinstance(decision, Placement):
            task = self.waiting.get(decision.task_id)
            if task is None:
                return self._refuse(f"{decision}: the task does not wait")
            granted = check(task.spec, agent)
            if not isinstance(granted, Resources):
                return self._refuse(f"{decision}: {'; '.join(o.sentence for o in granted)}")
            self.withdraw(decision.task_id)
            self._hold(int(decision.task_id), task.framework_id, agent, granted, task)
            return True
        framework = self.frameworks.get(decision.framework_id)
        if framework is None or not framework.wants_offers:
            return self._refuse(f"{decision}: the framework takes no offers")
        if not agent.free or not agent.tasks_left:
            return self._refuse(f"{decision}: nothing is free there")
        self._hold(self._next_offer, decision.framework_id, agent, agent.free, None)
        self._next_offer -= 1
        return True

    def check_books(self) -> None:
        """Check that what is held and what is free add up.

        Raises:
            AssertionError: if they do not.
        """
        for agent in self.agents.values():
            held = Resources()
            for holding in self.holdings.values():
                if holding.agent_id == agent.id:
                    held = held + holding.granted
            assert held == agent.held, f"{agent.id} holds {agent.held}, its tasks {held}"
            assert agent.free == agent.totals.minus_at_most(held), f"{agent.id} has {agent.free} free"

    def _refuse(self, sentence: str) -> bool:
        self.refusals.append(sentence)
        return False

    def _hold(
        self,
        number: int,
        framework_id: FrameworkId,
        agent: ClusterAgent,
        granted: Resources,
        task: ClusterTask | None,
    ) -> None:
        amounts = agent.quantities(granted)
        agent.take(granted)
        agent.tasks += task is not None
        self.holdings[number] = Holding(framework_id, agent.id, granted, amounts, task)
        framework = self.frameworks[framework_id]
        framework.allocated = add_scalars(framework.allocated, amounts)
        framework.allocations += 1
        self.agent_changes.add(agent.id)
        self.framework_changes.add(framework_id)

    def _uncharge(self, holding: Holding) -> None:
        framework = self.frameworks[holding.framework_id]
        framework.allocated = subtract_scalars(framework.allocated, holding.amounts)
        framework.allocations -= 1
        self.framework_changes.add(holding.framework_id)

    def _add_totals(self, agent: ClusterAgent, sign: int) -> None:
        for name, milli in agent.quantities(agent.totals).items():
            self.totals[name] = self.totals.get(name, 0) + sign * milli


def task_spec(
    resources: str = "",
    *,
    executors: Sequence[str] = ("process",),
    devices: Sequence[DeviceRequest] = (),
    name: str = "task",
) -> TaskSpec:
    """Return a spec that asks for these resources, such as `cpus:1;mem:64`, on any of these executors."""
    return TaskSpec(
        name=name,
        implementations=tuple(Implementation(executor) for executor in executors),
        resources=ResourceRequest.parse(resources, devices),
    )
