"""The scheduler: an order of tasks, and an agent for each that fits somewhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from edgerm_core.account import Account
from edgerm_core.attributes import satisfies
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import (
    Decision,
    FrameworkView,
    OfferProposal,
    Placement,
    Scheduler,
    Snapshot,
    TaskView,
)

from edgerm_scheduler_strict_priority.ages import Ages
from edgerm_scheduler_strict_priority.config import Config

MAX_TASKS_TRIED = 10_000
"""Waiting tasks of a framework that one call looks at; those behind them wait until some of these
are placed."""


class StrictPriorityScheduler(Scheduler):
    """The most important role first, and who has waited long becomes more important."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ages = Ages()

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        """See `Scheduler.schedule`."""
        self._ages.update(snapshot)
        # The snapshot does not change during the call: this remembers what is left.
        account = Account(snapshot.agents)
        decisions: list[Decision] = []
        hopeless: set[str] = set()
        for task in self._in_order(snapshot):
            if len(decisions) == self._config.max_decisions:
                return decisions
            question = repr((task.spec.resources, task.spec.constraints, task.spec.implementations))
            if question in hopeless:
                continue  # The same has just been asked for in vain.
            agent_id = _place(task, snapshot, account)
            if agent_id is None:
                hopeless.add(question)
            else:
                decisions.append(Placement(task.id, agent_id))
        return [*decisions, *self._offers(snapshot, account)][: self._config.max_decisions]

    def explain(self, task: TaskView, snapshot: Snapshot) -> str:
        """See `Scheduler.explain`."""
        framework = snapshot.frameworks[task.framework_id]
        own = self._config.priority_of(framework.role)
        now = self._priority(framework, task, snapshot)
        ahead = sum(
            self._key(snapshot.frameworks[other.framework_id], other, snapshot)
            < self._key(framework, task, snapshot)
            for each in snapshot.frameworks.values()
            for other in itertools.islice(each.pending, MAX_TASKS_TRIED)
        )
        role = f"role {framework.role!r}" if framework.role else "no role"
        aged = f" and {now - own} for its waiting" if now > own else ""
        return f"priority {now} ({own} by {role}{aged}); {ahead} waiting tasks come first"

    def _in_order(self, snapshot: Snapshot) -> list[TaskView]:
        waiting = [
            (self._key(framework, task, snapshot), task)
            for framework in snapshot.frameworks.values()
            for task in itertools.islice(framework.pending, MAX_TASKS_TRIED)
        ]
        return [task for _, task in sorted(waiting, key=lambda pair: pair[0])]

    def _key(self, framework: FrameworkView, task: TaskView, snapshot: Snapshot) -> tuple[int, int]:
        return -self._priority(framework, task, snapshot), task.id

    def _priority(self, framework: FrameworkView, task: TaskView, snapshot: Snapshot) -> int:
        own = self._config.priority_of(framework.role)
        if not self._config.ageing_s:
            return own
        return own + int(self._ages.waited_s(task.id, snapshot.now) / self._config.ageing_s)

    def _offers(self, snapshot: Snapshot, account: Account) -> list[Decision]:
        """Return an offer of each agent with something left, to the first framework that may want it."""
        takers = sorted(
            (-self._config.priority_of(framework.role), framework.id)
            for framework in snapshot.frameworks.values()
            if framework.wants_offers
        )
        offers: list[Decision] = []
        for agent_id in account:
            left = account.free(agent_id)
            for _, framework_id in takers if left else ():
                if not snapshot.refused(framework_id, agent_id, left):
                    offers.append(OfferProposal(framework_id, agent_id))
                    break
        return offers


def _place(task: TaskView, snapshot: Snapshot, account: Account) -> AgentId | None:
    """Return where the task goes, taken off the account; None if it fits nowhere."""

    def rank(agent_id: AgentId) -> tuple[bool, float, int, int]:
        facts = snapshot.agents[agent_id].attributes
        liked = sum(p.weight for p in task.spec.preferences if satisfies(p.constraint, facts))
        left = account.free(agent_id).scalars
        return agent_id in task.avoid, -liked, left.get("cpus", 0), left.get("mem", 0)

    agents = sorted(account, key=rank)
    return next((agent_id for agent_id in agents if account.place(task.spec, agent_id)), None)
