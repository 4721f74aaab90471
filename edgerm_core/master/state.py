"""The master's books: every record, and the few primitive changes that all concerns share.

Rules of this package. The books change only inside `Machine.handle`, which dispatches an event to
one concern (`sessions`, `agents`, `frameworks`, `tasks`, `statuses`, `offers`, `placement`, `logs`,
`queries`); concerns are plain functions over these books. Time comes in with the event. Whatever
is to leave goes through `send` and friends into `effects`; whatever is to last is marked dirty and
written, once per batch, by `journal`. Nothing here waits, reads a clock, or rolls dice.

Three accounts must always agree, and `invariants.check` says so after every event in tests:
an agent's `free` is its totals minus its holdings, ghosts and offers; a framework's `allocated` is
the sum of its holdings and offers; a task is held by exactly the agent it is on.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from edgerm_core import agents as agent_lifecycle
from edgerm_core import frameworks as framework_lifecycle
from edgerm_core import tasks as task_lifecycle
from edgerm_core.agents import AgentState
from edgerm_core.frameworks import FrameworkState
from edgerm_core.ids import AgentId, BlobId, FrameworkId, OfferId, SessionId, TaskId, format_task_id
from edgerm_core.interfaces import Scheduler
from edgerm_core.lifecycle import check_transition
from edgerm_core.limits import MAX_MESSAGE_TEXT, MAX_STORY_ENTRIES
from edgerm_core.master.effects import CloseSession, Effect, Report, Send
from edgerm_core.master.records import (
    AgentRecord,
    FrameworkRecord,
    Holding,
    OfferRecord,
    Session,
    TaskRecord,
)
from edgerm_core.master.settings import Settings
from edgerm_core.master.timelimit import Within, unlimited
from edgerm_core.messages import AnyMessage, Failed
from edgerm_core.resources import Resources, add_scalars, subtract_scalars
from edgerm_core.tasks import StoryEntry, TaskState


class Deadline(NamedTuple):
    """Something to look at when `at` has come. The handler checks whether it is still meant."""

    at: float
    order: int
    handle: Callable[[MasterState, Any], None]
    key: Any


STORY_HEAD: Final = 8
"""Entries of a long story that are kept from its beginning."""


class MasterState:
    """The books. Public attributes are read by the concerns; change them through the methods."""

    def __init__(self, settings: Settings, scheduler: Scheduler, master_id: str, now: float) -> None:
        self.settings = settings
        self.scheduler = scheduler
        #: How the scheduler is called; the runner gives calls a limit.
        self.within: Within = unlimited
        #: Why nothing is placed at present; empty while the scheduler works.
        self.scheduler_problem = ""
        #: False once the scheduler did not come back from an explanation.
        self.scheduler_explains = True
        self.master_id = master_id
        self.now = now
        self.started_at = now
        self.sessions: dict[SessionId, Session] = {}
        self.agents: dict[AgentId, AgentRecord] = {}
        self.frameworks: dict[FrameworkId, FrameworkRecord] = {}
        self.tasks: dict[TaskId, TaskRecord] = {}
        self.offers: dict[OfferId, OfferRecord] = {}
        #: Blobs on the master's disk, with their sizes.
        self.blobs: dict[BlobId, int] = {}
        #: Tasks that wait for a blob, by blob.
        self.waiting_blobs: dict[BlobId, set[TaskId]] = {}
        #: Ended tasks in the order of their ends: the first to be forgotten.
        self.ended_order: dict[TaskId, None] = {}
        self.next_task_id = 1
        self.next_offer_id = 1
        #: Log streams under way: the master's request id to (asker's session, asker's id, agent).
        self.log_routes: dict[int, tuple[SessionId, int, AgentId]] = {}
        self.next_log_route = 1
        self.effects: list[Effect] = []
        #: Acknowledgements owed at the end of the batch: (session, task, attempt) to seq.
        self.owed_acknowledgements: dict[tuple[SessionId, TaskId, int], int] = {}
        #: Tasks whose framework is to be told at the end of the batch.
        self.news: dict[TaskId, None] = {}
        #: Records to be written at the end of the batch, as (kind, id).
        self.dirty: dict[tuple[str, Any], None] = {}
        #: What the scheduler has not been told yet.
        self.agent_changes: set[AgentId] = set()
        self.framework_changes: set[FrameworkId] = set()
        self.task_changes: set[TaskId] = set()
        self.totals: dict[str, int] = {}
        self.schedulable: dict[AgentId, AgentRecord] = {}
        #: Decisions of the scheduler that did not fit, since the start.
        self.refused_decisions = 0
        self.observed = False
        self._deadlines: list[Deadline] = []
        self._deadline_order = itertools.count()

    # --- what leaves --------------------------------------------------------------------------

    def send(self, session_id: SessionId | None, message: AnyMessage) -> None:
        """Send to a session; None (nobody there) sends nothing."""
        if session_id is not None:
            self.effects.append(Send(session_id, message))

    def fail(self, session_id: SessionId, request_id: int, code: str, text: str) -> None:
        """Answer a request with Failed."""
        self.send(session_id, Failed(request_id, code, text[:MAX_MESSAGE_TEXT]))

    def close_session(self, session_id: SessionId, code: str, text: str) -> None:
        """Refuse a peer and end its session. The SessionClosed event follows from the runner."""
        self.effects.append(CloseSession(session_id, code, text))

    def report(self, level: int, text: str) -> None:
        """Put a line into the operator's log."""
        self.effects.append(Report(level, text))

    # --- time ---------------------------------------------------------------------------------

    def at(self, when: float, handle: Callable[[MasterState, Any], None], key: Any) -> None:
        """Call `handle(state, key)` when `when` has come; it must check that it is still meant."""
        heapq.heappush(self._deadlines, Deadline(when, next(self._deadline_order), handle, key))

    def next_deadline(self) -> float | None:
        """Return when to come back even if nothing happens; None: never."""
        return self._deadlines[0].at if self._deadlines else None

    def pop_due(self) -> Deadline | None:
        """Return a deadline that has come, or None."""
        if self._deadlines and self._deadlines[0].at <= self.now:
            return heapq.heappop(self._deadlines)
        return None

    # --- tasks --------------------------------------------------------------------------------

    def move_task(
        self, task: TaskRecord, state: TaskState, reason: str, source: str, message: str = ""
    ) -> None:
        """Take a task into a state: check the step, keep the story, tell and write.

        Raises:
            TransitionError: if the table does not list the step.
        """
        if state is not task.state:
            check_transition(
                task_lifecycle.TRANSITIONS,
                task.state,
                state,
                f"task {format_task_id(task.id)}",
                lambda: [f"{e.at:.3f} {e.state.name} {e.reason} {e.message}" for e in task.story],
            )
        task.state = state
        self.note(task, reason, source, message)

    def note(self, task: TaskRecord, reason: str, source: str, message: str = "") -> None:
        """Add a line to a task's story without changing its state."""
        message = message[:MAX_MESSAGE_TEXT]
        task.reason = reason
        task.message = message
        task.changed_at = self.now
        task.version += 1
        story = task.story
        if len(story) >= MAX_STORY_ENTRIES:
            del story[STORY_HEAD]
        story.append(
            StoryEntry(self.now, task.state, reason, source, message, task.attempt, task.agent_id or "")
        )
        self.news[task.id] = None
        self.dirty["task", task.id] = None

    def queue_task(self, task: TaskRecord) -> None:
        """Let a PENDING task compete for placement."""
        self.frameworks[task.framework_id].pending[task.id] = task
        self.task_changes.add(task.id)

    def unqueue_task(self, task: TaskRecord) -> None:
        """Take a task out of the competition, if it is in it."""
        if self.frameworks[task.framework_id].pending.pop(task.id, None) is not None:
            self.task_changes.add(task.id)

    # --- the accounts -------------------------------------------------------------------------

    def hold(self, agent: AgentRecord, holding: Holding) -> None:
        """Book what an attempt holds. The caller has checked that it fits."""
        agent.holdings[holding.task_id] = holding
        agent.free = agent.free - holding.resources
        self.charge(agent, holding, +1)
        self.agent_changes.add(agent.id)

    def release(self, agent: AgentRecord, task_id: TaskId) -> None:
        """Give back what the current attempt of a task holds, if it holds anything."""
        holding = agent.holdings.pop(task_id, None)
        if holding is not None:
            self.charge(agent, holding, -1)
            self._give_back(agent, holding.resources)

    def to_ghost(self, agent: AgentRecord, task_id: TaskId) -> None:
        """Keep the agent's resources booked for a run that was given up but may still go on there.

        The framework is no longer charged for it.
        """
        holding = agent.holdings.pop(task_id)
        self.charge(agent, holding, -1)
        agent.ghosts[task_id, holding.attempt] = holding
        self.dirty["agent", agent.id] = None
        self.agent_changes.add(agent.id)

    def from_ghost(self, agent: AgentRecord, task_id: TaskId, attempt: int) -> None:
        """Take a given-up run back as the current attempt."""
        holding = agent.ghosts.pop((task_id, attempt))
        agent.holdings[task_id] = holding
        self.charge(agent, holding, +1)
        self.dirty["agent", agent.id] = None
        self.agent_changes.add(agent.id)

    def drop_ghost(self, agent: AgentRecord, task_id: TaskId, attempt: int) -> None:
        """A given-up run has ended: its resources are free again."""
        ghost = agent.ghosts.pop((task_id, attempt), None)
        if ghost is not None:
            self.dirty["agent", agent.id] = None
            self._give_back(agent, ghost.resources)

    def hold_offer(self, offer: OfferRecord) -> None:
        """Book an offer, which counts as allocated while it is out."""
        agent = self.agents[offer.agent_id]
        self.offers[offer.id] = offer
        agent.offers[offer.id] = None
        self.frameworks[offer.framework_id].offers.add(offer.id)
        agent.free = agent.free - offer.resources
        self.charge(agent, offer, +1)
        self.agent_changes.add(agent.id)

    def release_offer(self, offer: OfferRecord) -> None:
        """Take an offer off the books."""
        agent = self.agents[offer.agent_id]
        del self.offers[offer.id]
        agent.offers.pop(offer.id, None)
        framework = self.frameworks.get(offer.framework_id)
        if framework is not None:
            framework.offers.discard(offer.id)
        self.charge(agent, offer, -1)
        self._give_back(agent, offer.resources)

    def _give_back(self, agent: AgentRecord, resources: Resources) -> None:
        if agent.overbooked:
            self.recount(agent)
        else:
            agent.free = agent.free + resources
            self.agent_changes.add(agent.id)

    def recount(self, agent: AgentRecord) -> None:
        """Derive `free` anew from totals and everything booked.

        Totals may have shrunk below what is booked; then `free` is zero and nothing more is placed
        until it fits again (Mesos does the same).
        """
        booked = [
            *(holding.resources for holding in agent.holdings.values()),
            *(ghost.resources for ghost in agent.ghosts.values()),
            *(self.offers[offer_id].resources for offer_id in agent.offers),
        ]
        free = agent.totals
        agent.overbooked = False
        for resources in booked:
            if not free.contains(resources):
                agent.overbooked = True
            free = free.minus_at_most(resources)
        agent.free = free
        self.agent_changes.add(agent.id)

    def charge(self, agent: AgentRecord, held: Holding | OfferRecord, sign: int) -> None:
        """Add to (+1) or take off (-1) what fair sharing counts for a framework on a counted agent."""
        framework = self.frameworks.get(held.framework_id)
        if framework is None or not agent.counted:
            return
        change = add_scalars if sign > 0 else subtract_scalars
        framework.allocated = change(framework.allocated, held.charge)
        framework.allocations += sign
        self.framework_changes.add(framework.id)

    # --- agents and frameworks ----------------------------------------------------------------

    def move_agent(self, agent: AgentRecord, state: AgentState, text: str = "") -> None:
        """Take an agent into a state and keep the list of schedulable ones right.

        Raises:
            TransitionError: if the table does not list the step.
        """
        if state is not agent.state:
            check_transition(agent_lifecycle.TRANSITIONS, agent.state, state, f"agent {agent.id}")
            self._count(agent, -1)
            agent.state = state
            self._count(agent, +1)
            self.dirty["agent", agent.id] = None
            suffix = f": {text}" if text else ""
            self.report(logging.INFO, f"agent {agent.info.name or agent.id} is {state.name}{suffix}")
        self.refresh_schedulable(agent)

    def _count(self, agent: AgentRecord, sign: int) -> None:
        """Take a counted agent into (+1) or out of (-1) the cluster's totals, with what is held there."""
        if not agent.counted:
            return
        change = add_scalars if sign > 0 else subtract_scalars
        self.totals = change(self.totals, agent.fair_totals)
        for holding in agent.holdings.values():
            self.charge(agent, holding, sign)
        for offer_id in agent.offers:
            self.charge(agent, self.offers[offer_id], sign)

    def add_agent(self, agent: AgentRecord) -> None:
        """Put an agent on the books."""
        self.agents[agent.id] = agent
        self._count(agent, +1)
        self.refresh_schedulable(agent)

    def remove_agent(self, agent: AgentRecord) -> None:
        """Take an agent that holds nothing off the books."""
        assert not agent.holdings, "its tasks must be dealt with first"
        assert not agent.offers, "its offers must be rescinded first"
        self._count(agent, -1)
        del self.agents[agent.id]
        self.refresh_schedulable(agent)
        self.dirty["agent", agent.id] = None

    def refresh_schedulable(self, agent: AgentRecord) -> None:
        """Bring `schedulable` in line with the agent's state and session."""
        self.schedulable.pop(agent.id, None)
        if agent.schedulable and agent.id in self.agents:
            self.schedulable[agent.id] = agent
        self.agent_changes.add(agent.id)

    def describe_agent(self, agent: AgentRecord, change: Callable[[], None]) -> None:
        """Let `change` alter the agent's description, keeping totals and free amounts right."""
        if agent.counted:
            self.totals = subtract_scalars(self.totals, agent.fair_totals)
        change()
        if agent.counted:
            self.totals = add_scalars(self.totals, agent.fair_totals)
        self.recount(agent)
        self.dirty["agent", agent.id] = None

    def move_framework(self, framework: FrameworkRecord, state: FrameworkState) -> None:
        """Take a framework into a state.

        Raises:
            TransitionError: if the table does not list the step.
        """
        if state is not framework.state:
            check_transition(
                framework_lifecycle.TRANSITIONS, framework.state, state, f"framework {framework.id}"
            )
            framework.state = state
        self.framework_changes.add(framework.id)
        self.dirty["framework", framework.id] = None
