"""What the scheduler remembers between calls, and how it keeps up with the cluster.

All of it is ids and numbers, built from complete snapshots and kept up to date from the changes that
later ones name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from fractions import Fraction

from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import AgentView, FrameworkView, Snapshot, TaskView
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskSpec
from edgerm_scheduler_drf.account import quantities
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.demand import TASKS, Demand, demand_key
from edgerm_scheduler_drf.finder import Finder
from edgerm_scheduler_drf.index import AgentIndex
from edgerm_scheduler_drf.matching import Matches
from edgerm_scheduler_drf.queue import Queue
from edgerm_scheduler_drf.reservations import Reservations
from edgerm_scheduler_drf.scoring import ROOM_ONE, capability, computing_class, room, worth_offering
from edgerm_scheduler_drf.sorter import Path, Sorter

OFFERABLE = "/offerable"
"""Column of the index that says whether an agent is worth offering; no resource can be called so."""


class Books:
    """The scheduler's own view of the cluster.

    Attributes:
        sorter: the tree of roles and frameworks by share; a framework's leaf is `paths[id]`.
        index: what is free where.
        finder: finds agents for demands.
        reservations: agents that are set aside.
        not_scalar: resource names that are ranges or sets on some agent.
        offer_takers: frameworks that want offers.
        offers_made: offers made to each framework so far. They break ties, as all allocations ever made do
            in Mesos: whoever returns everything would else be asked first for ever.
        offer_starts: slot from which the search for an offer goes on, where a call had to break off.
        queues: waiting tasks by framework.
        ready: frameworks that may have a task that fits; the others certainly have none.
        demand_of: waiting tasks and what they ask for.
        blocked: demands that fit nowhere, by signature.
        hopeless: blocked demands that would not fit on any agent if it were empty.
        touched_agents, touched_frameworks, placed: what the last call gave away; read again with the
            next, since the master may have refused it.
    """

    def __init__(self, config: DrfConfig) -> None:
        self._config = config
        self.sorter = new_sorter(config)
        self.index = AgentIndex()
        self.matches = Matches(self.index)
        self.finder = Finder(self.index, self.matches, self._config.strategy == "spread")
        self.reservations = Reservations(self._config)
        self.versions: dict[AgentId, int] = {}
        self.not_scalar: set[str] = set()
        self.paths: dict[FrameworkId, Path] = {}
        self.ids: dict[Path, FrameworkId] = {}
        self.offer_takers: set[FrameworkId] = set()
        self.queues: dict[FrameworkId, Queue] = {}
        self.ready: set[FrameworkId] = set()
        self.demands: dict[Hashable, Demand] = {}
        self.demand_of: dict[TaskId, Demand] = {}
        self.framework_of: dict[TaskId, FrameworkId] = {}
        self.blocked: dict[tuple[tuple[str, int], ...], set[Demand]] = {}
        self.offers_made: dict[FrameworkId, int] = {}
        self.offer_starts: dict[FrameworkId, int] = {}
        self.touched_agents: set[AgentId] = set()
        self.touched_frameworks: set[FrameworkId] = set()
        self.placed: set[TaskId] = set()
        self.hopeless: set[Demand] = set()

    def take_over(self, snapshot: Snapshot, complete: bool) -> None:
        """Take over what the snapshot says has changed, or everything."""
        self._take_over_frameworks(snapshot, complete)
        self._take_over_agents(snapshot, complete)
        self._take_over_tasks(snapshot, complete)

    def _take_over_frameworks(self, snapshot: Snapshot, complete: bool) -> None:
        self.sorter.set_totals(snapshot.totals)
        changed: Iterable[FrameworkId] = (
            snapshot.frameworks if complete else snapshot.framework_changes | self.touched_frameworks
        )
        self.touched_frameworks = set()
        for framework_id in changed:
            framework = snapshot.frameworks.get(framework_id)
            old_path = self.paths.get(framework_id)
            path = framework_path(framework) if framework is not None else None
            if old_path is not None and old_path != path:
                self.sorter.remove(old_path)
                del self.paths[framework_id], self.ids[old_path]
            self.offer_takers.discard(framework_id)
            if framework is None or path is None:
                self._drop_queue(framework_id)
                self.offers_made.pop(framework_id, None)
                continue
            self.paths[framework_id] = path
            self.ids[path] = framework_id
            made = self.offers_made.get(framework_id, 0)
            self.sorter.put(path, framework.allocated, framework.allocations + made)
            self.sorter.set_weight(path, framework_weight(framework))
            if framework.wants_offers:
                self.offer_takers.add(framework_id)

    def _take_over_agents(self, snapshot: Snapshot, complete: bool) -> None:
        changed: Iterable[AgentId] = (
            snapshot.agents if complete else snapshot.agent_changes | self.touched_agents
        )
        self.touched_agents = set()
        capabilities: dict[AgentId, int | None] = {}
        for agent_id in changed:
            agent = snapshot.agents.get(agent_id)
            slot = self.index.slot(agent_id)
            if agent is None:
                if slot is not None:
                    self.index.hidden.discard(slot)
                    self.matches.agent_changed(agent_id, None)
                    del self.versions[agent_id]
                    capabilities[agent_id] = None
            elif slot is None or self.versions.get(agent_id) != agent.static_version:
                capabilities[agent_id] = capability(agent.totals)
        if capabilities:
            self._hope_again()
            if self.index.place(capabilities):
                self.offer_starts.clear()
        grown: set[int] = set()
        for agent_id in changed:
            agent = snapshot.agents.get(agent_id)
            slot = self.index.slot(agent_id)
            if agent is None or slot is None:
                continue
            free = agent.free
            for part in (agent.totals.ranges, agent.totals.sets, free.ranges, free.sets):
                self.not_scalar.update(part)
            new_facts = self.versions.get(agent_id) != agent.static_version
            if new_facts:
                self.versions[agent_id] = agent.static_version
                self.matches.agent_changed(agent_id, agent)
            if self.set_free(agent_id, agent, free, agent.tasks_left) or new_facts:
                self.index.note_growth(slot)
                grown.add(slot)
        self._wake(grown)

    def set_free(self, agent_id: AgentId, agent: AgentView, free: Resources, tasks_left: int) -> bool:
        """Tell the index what is free on an agent; returns whether anything grew."""
        amounts = quantities(free, agent.devices)
        rank = self.rank(agent, amounts) if self._config.strategy == "spread" else 0
        if tasks_left:
            amounts[TASKS] = tasks_left
            if worth_offering(free, agent.totals):
                amounts[OFFERABLE] = 1
        return self.index.set(agent_id, amounts, rank)

    def rank(self, agent: AgentView, amounts: dict[str, int]) -> int:
        """Return what `spread` minimises: the computing class first, then the load."""
        return computing_class(agent.totals) * 2 * ROOM_ONE + ROOM_ONE - room(amounts, agent.totals)

    def _take_over_tasks(self, snapshot: Snapshot, complete: bool) -> None:
        if complete:
            for framework in snapshot.frameworks.values():
                self._add_tasks(list(framework.pending))
            return
        coming: list[TaskView] = []
        for task_id in snapshot.task_changes | self.placed:
            task = snapshot.pending_task(task_id)
            known = self.demand_of.get(task_id)
            if known is not None:
                if (
                    task is not None
                    and self.framework_of[task_id] == task.framework_id
                    and demand_key(task) == known.key
                ):
                    continue
                self.drop_task(task_id)
            if task is not None:
                coming.append(task)
        self.placed.clear()
        self._add_tasks(coming)

    def _add_tasks(self, tasks: list[TaskView]) -> None:
        # Tasks of one submission share their spec object; the list keeps the specs alive meanwhile.
        seen: dict[int, tuple[TaskSpec, Demand]] = {}
        for task in tasks:
            spec = task.spec
            known = seen.get(id(spec)) if not task.avoid else None
            demand = known[1] if known is not None and known[0] is spec else self._demand(task)
            if not task.avoid:
                seen[id(spec)] = (spec, demand)
            self.demand_of[task.id] = demand
            self.framework_of[task.id] = task.framework_id
            demand.waiting += 1
            queue = self.queues.get(task.framework_id)
            if queue is None:
                queue = self.queues[task.framework_id] = Queue(task.framework_id, self.demand_of)
            queue.add(task.id, demand)
            self.ready.add(task.framework_id)

    def _demand(self, task: TaskView) -> Demand:
        key = demand_key(task)
        demand = self.demands.get(key)
        if demand is None:
            demand = self.demands[key] = Demand(key, task)
        return demand

    def drop_task(self, task_id: TaskId) -> None:
        demand = self.demand_of.pop(task_id)
        del self.framework_of[task_id]
        demand.waiting -= 1
        if not demand.waiting:
            del self.demands[demand.key]
            self.finder.forget(demand)
            self.hopeless.discard(demand)
            self._unblock(demand)
        if self.reservations.of_task(task_id) is not None:
            self.open(task_id)
        self.reservations.forget(task_id)

    def _drop_queue(self, framework_id: FrameworkId) -> None:
        queue = self.queues.pop(framework_id, None)
        self.ready.discard(framework_id)
        for task_id in queue.tasks() if queue is not None else ():
            self.drop_task(task_id)

    # --- demands that fit nowhere -------------------------------------------------------------

    def block(self, demand: Demand, now: float) -> None:
        demand.blocked = True
        if demand.blocked_since is None:
            demand.blocked_since = now
        self.blocked.setdefault(demand.signature, set()).add(demand)

    def _unblock(self, demand: Demand) -> None:
        if not demand.blocked:
            return
        demand.blocked = False
        group = self.blocked[demand.signature]
        group.discard(demand)
        if not group:
            del self.blocked[demand.signature]
        for framework_id in demand.parked_by:
            queue = self.queues.get(framework_id)
            if queue is not None:
                queue.wake(demand)
                self.ready.add(framework_id)
        demand.parked_by.clear()

    def _wake(self, slots: set[int]) -> None:
        """Look again at the blocked demands that may fit on these slots."""
        if not slots or not self.blocked:
            return
        index = self.index
        for signature, group in list(self.blocked.items()):
            near = index.columns(signature)
            enough = [slot for slot in slots if index.has(slot, near)]
            if not enough:
                continue
            for demand in list(group):
                needs = index.columns(demand.needs)
                if any(index.has(slot, needs) and self.matches.may_suit(demand, slot) for slot in enough):
                    self._unblock(demand)

    def give_up_hope(self, framework_id: FrameworkId, demand: Demand) -> None:
        """A demand that fits on no agent, even an empty one, shall not stand before those that do."""
        self.hopeless.add(demand)
        self.queues[framework_id].unpark_oldest()

    def _hope_again(self) -> None:
        for demand in self.hopeless:
            for framework_id in demand.parked_by:
                if framework_id in self.queues:
                    self.queues[framework_id].wake(demand)
        self.hopeless.clear()

    # --- agents set aside ---------------------------------------------------------------------

    def open(self, task_id: TaskId) -> None:
        """End a reservation."""
        reservation = self.reservations.of_task(task_id)
        assert reservation is not None
        self.reservations.release(task_id)
        slot = self.index.slot(reservation.agent_id)
        if slot is not None:
            self.index.hidden.discard(slot)
            self.index.note_growth(slot)
            self._wake({slot})


def framework_path(framework: FrameworkView) -> Path:
    """Return where the framework stands in the tree of roles; no role is called like the last part."""
    roles = tuple(framework.role.split("/")) if framework.role else ()
    return (*roles, f":{framework.id}")


def framework_weight(framework: FrameworkView) -> Fraction:
    return Fraction(max(1, framework.weight), 1000)


def new_sorter(config: DrfConfig) -> Sorter:
    """Return a sorter that knows what the config says, and nobody yet."""
    sorter = Sorter(config.exclude)
    for role, weight in config.weights().items():
        sorter.set_weight(tuple(role.split("/")), weight)
    return sorter
