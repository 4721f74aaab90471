"""The built-in scheduler: frameworks take turns, the oldest task first, on the first agent it fits.

Simple and correct, for small clusters and for when no other scheduler is installed. It keeps nothing
between calls but whose turn it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edgerm_core.account import Account
from edgerm_core.attributes import Constraint
from edgerm_core.feasibility import launch_bytes
from edgerm_core.hookspecs import hookimpl
from edgerm_core.ids import AgentId, FrameworkId
from edgerm_core.interfaces import (
    Decision,
    FrameworkView,
    OfferProposal,
    Placement,
    Provider,
    Scheduler,
    Snapshot,
    TaskView,
)
from edgerm_core.resources import ResourceRequest

MAX_DECISIONS: Final = 1_000
"""Decisions of one call; bounds how long the master waits for them."""

MAX_TASKS_TRIED: Final = 10_000
"""Tasks of one framework that are looked at in one turn; those behind them wait for a later call."""


class FirstFitScheduler(Scheduler):
    """Frameworks in turns, oldest task first, first agent by id that fits."""

    def __init__(self) -> None:
        self._last: FrameworkId | None = None

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        """Return decisions until nothing fits or there are `MAX_DECISIONS`."""
        if snapshot.complete:
            self._last = None
        call = _Call(snapshot)
        order = sorted(snapshot.frameworks)
        start = next((i for i, f in enumerate(order) if self._last is not None and f > self._last), 0)
        turns = order[start:] + order[:start]
        decisions: list[Decision] = []
        while turns and len(decisions) < MAX_DECISIONS:
            served: list[FrameworkId] = []
            for framework_id in turns:
                decision = call.next_decision(snapshot.frameworks[framework_id])
                if decision is not None and len(decisions) < MAX_DECISIONS:
                    decisions.append(decision)
                    served.append(framework_id)
                    self._last = framework_id
            turns = served
        return decisions


class _Call:
    """One call of `schedule`, with its own account of what is left."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._account = Account(snapshot.agents)
        self._waiting: dict[FrameworkId, list[TaskView]] = {}
        self._hopeless: list[tuple[object, ...]] = []

    def next_decision(self, framework: FrameworkView) -> Decision | None:
        """Return the framework's next placement or offer; what it needs is taken off the account."""
        if framework.id not in self._waiting:
            tasks = zip(framework.pending, range(MAX_TASKS_TRIED), strict=False)
            self._waiting[framework.id] = [task for task, _ in tasks][::-1]
        waiting = self._waiting[framework.id]
        while waiting:
            task = waiting.pop()
            question = _question(task)
            if question in self._hopeless:
                continue  # Nothing has become free since the same was asked for in vain.
            agent_id = self._place(task)
            if agent_id is not None:
                return Placement(task.id, agent_id)
            self._hopeless.append(question)
        return self._offer(framework) if framework.wants_offers else None

    def _place(self, task: TaskView) -> AgentId | None:
        agents = sorted(self._account, key=lambda agent_id: agent_id in task.avoid)
        return next((agent_id for agent_id in agents if self._account.place(task.spec, agent_id)), None)

    def _offer(self, framework: FrameworkView) -> OfferProposal | None:
        for agent_id in self._account:
            free = self._account.free(agent_id)
            if free and not self._snapshot.refused(framework.id, agent_id, free):
                self._account.offer(agent_id)
                return OfferProposal(framework.id, agent_id)
        return None


def _question(task: TaskView) -> tuple[ResourceRequest, tuple[str, ...], tuple[Constraint, ...], int]:
    executors = tuple(implementation.executor for implementation in task.spec.implementations)
    return (task.spec.resources, executors, task.spec.constraints, launch_bytes(task.spec))


def _create(_: None) -> Scheduler:
    return FirstFitScheduler()


@hookimpl
def schedulers() -> Iterable[Provider[Scheduler]]:
    """Provide the scheduler `first-fit`."""
    return [
        Provider(
            name="first-fit",
            create=_create,
            summary="frameworks take turns, oldest task first, first agent that fits",
        )
    ]
