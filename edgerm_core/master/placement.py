"""Placement: ask the scheduler, check each of its decisions, carry out those that hold.

Plugins propose, the master disposes. A scheduler that raises, or whose decisions do not fit, costs
its own effect and nothing else; it can be unfair, it cannot oversubscribe.
"""

from __future__ import annotations

import itertools
import logging
from typing import Final

from edgerm_core.feasibility import check, choose_implementation
from edgerm_core.frameworks import FrameworkState
from edgerm_core.interfaces import Decision, OfferProposal, Placement
from edgerm_core.master.offers import make_offer
from edgerm_core.master.state import MasterState
from edgerm_core.master.tasks import place
from edgerm_core.master.timelimit import TookTooLong
from edgerm_core.master.window import FrameworkWindow, Window
from edgerm_core.resources import Resources

MAX_ROUNDS = 64
"""Calls of the scheduler in one go. A scheduler may hand out its decisions in parts; one that never
comes to an end is cut off here and goes on with the next batch."""

MAX_DECISIONS = 100_000
"""Decisions in one call. More is a scheduler that never comes to an end, and counts as its failure."""

RETRY_S = 1.0
"""After a scheduler raised, or was cut off, it is asked again after this long."""

BROKEN_OFF_RETRY_S: Final = 60.0
"""After a call that had to be broken off, the scheduler is not asked for this long: the next one may cost
the master as much time again, in which it does nothing else."""

ASK_AGAIN_S: Final = 30.0
"""While tasks wait, the scheduler is asked at least this often: what it holds back for a while, it would
hold back for ever if nothing else happened."""


class Placer:
    """Runs the scheduler when something changed that could let a task be placed, and now and then."""

    def __init__(self) -> None:
        self._complete = True
        self._ask_again_at: float | None = None
        self._not_before = 0.0

    def run(self, state: MasterState) -> None:
        """Ask for decisions until there are no more, and carry out those that hold."""
        if state.now < self._not_before:
            return
        overdue = self._ask_again_at is not None and self._ask_again_at <= state.now
        if not (overdue or state.agent_changes or state.framework_changes or state.task_changes):
            return
        for _ in range(MAX_ROUNDS):
            decisions = self._ask(state)
            carried_out = sum(self._dispose(state, decision) for decision in decisions)
            if not decisions or not carried_out:
                break
        else:
            self._come_back(state)
        if overdue or self._ask_again_at is None:
            self._ask_again_at = None
            if any(framework.pending for framework in state.frameworks.values()):
                self._ask_again_at = state.now + ASK_AGAIN_S
                state.at(self._ask_again_at, _look, None)

    def _ask(self, state: MasterState) -> list[Decision]:
        window = Window(state, self._complete)
        state.agent_changes.clear()
        state.framework_changes.clear()
        state.task_changes.clear()
        self._complete = False
        try:
            decisions = state.within(
                lambda: list(itertools.islice(state.scheduler.schedule(window), MAX_DECISIONS + 1))
            )
            if len(decisions) > MAX_DECISIONS:
                raise ValueError(f"more than {MAX_DECISIONS} decisions in one call")
            for decision in decisions:
                if not _well_formed(decision):
                    raise TypeError(f"{decision!r:.200} is not a decision")
            state.scheduler_problem = ""
            return decisions
        except Exception as error:
            # Whatever it knew may be half updated: it starts anew.
            self._complete = True
            retry_s, what = RETRY_S, f"{type(error).__name__}: {error}"
            if isinstance(error, TookTooLong):
                retry_s, what = BROKEN_OFF_RETRY_S, str(error)
                self._not_before = state.now + retry_s
            name = type(state.scheduler).__name__
            state.scheduler_problem = f"scheduler {name} failed: {what}"
            state.report(logging.ERROR, f"{state.scheduler_problem}; asked again in {retry_s:g} s")
            self._come_back(state, retry_s)
            return []

    def _come_back(self, state: MasterState, retry_s: float = RETRY_S) -> None:
        state.at(state.now + retry_s, _wake, None)

    def _dispose(self, state: MasterState, decision: Decision) -> bool:
        """Carry the decision out if it holds; return whether it did."""
        if isinstance(decision, Placement):
            done = self._place(state, decision)
        else:
            done = self._offer(state, decision)
        if not done:
            state.refused_decisions += 1
        return done

    def _place(self, state: MasterState, decision: Placement) -> bool:
        task = state.tasks.get(decision.task_id)
        agent = state.schedulable.get(decision.agent_id)
        if task is None or agent is None:
            return False
        if task.id not in state.frameworks[task.framework_id].pending:
            return False
        granted = check(task.spec, agent)
        if not isinstance(granted, Resources):
            # It may have counted on what another decision took: let it look again.
            state.task_changes.add(task.id)
            state.agent_changes.add(agent.id)
            return False
        implementation = choose_implementation(task.spec, agent.executors)
        assert implementation is not None, "check() said that it can run here"
        place(state, task, agent, implementation, granted)
        return True

    def _offer(self, state: MasterState, decision: OfferProposal) -> bool:
        framework = state.frameworks.get(decision.framework_id)
        agent = state.schedulable.get(decision.agent_id)
        if framework is None or agent is None or not agent.free or not agent.tasks_left:
            return False
        if framework.state is not FrameworkState.CONNECTED or not FrameworkWindow(framework).wants_offers:
            return False
        make_offer(state, framework, agent)
        return True


def _well_formed(decision: object) -> bool:
    """Return whether it is a decision at all; static types bind no plugin."""
    if isinstance(decision, Placement):
        return isinstance(decision.task_id, int) and isinstance(decision.agent_id, str)
    if isinstance(decision, OfferProposal):
        return isinstance(decision.framework_id, str) and isinstance(decision.agent_id, str)
    return False


def _look(_state: MasterState, _key: None) -> None:
    """Nothing but the end of a batch is needed: it runs the placer."""


def _wake(state: MasterState, _key: None) -> None:
    state.task_changes.update(
        task_id for framework in state.frameworks.values() for task_id in framework.pending
    )
    state.framework_changes.update(state.frameworks)
