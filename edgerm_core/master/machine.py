"""The master's state machine: one door, `handle(event, now) -> list[Effect]`.

Pure: no clock, no I/O, no randomness. The same events at the same times give the same effects and
the same books, which is what replay and simulation rest on. After some events the caller hands in
`BatchEnded`: deadlines are looked at, the scheduler is asked, and one `Commit` lists all writes. The
caller makes those durable before it carries out any effect of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edgerm_core.frameworks import FrameworkState
from edgerm_core.ids import BlobId, format_task_id
from edgerm_core.interfaces import Scheduler
from edgerm_core.master import agents, frameworks, journal, logs, offers, sessions, statuses, tasks
from edgerm_core.master.effects import Changed, Commit, Effect
from edgerm_core.master.events import (
    BatchEnded,
    BlobRemoved,
    BlobStored,
    Event,
    Heard,
    Received,
    SessionClosed,
    SessionOpened,
    Undeliverable,
)
from edgerm_core.master.placement import Placer
from edgerm_core.master.queries import agent_row, answer, framework_row, task_row
from edgerm_core.master.records import AgentRecord, FrameworkRecord, Session
from edgerm_core.master.settings import Settings
from edgerm_core.master.state import MasterState
from edgerm_core.messages import (
    Accept,
    AnyMessage,
    Decline,
    Done,
    Drain,
    Forget,
    Greet,
    Heartbeat,
    Inventory,
    KillTasks,
    LogData,
    LogGet,
    Query,
    Reconcile,
    RefusalCode,
    Register,
    Revive,
    StatusUpdate,
    Submit,
    Subscribe,
    Suppress,
    TaskAcknowledge,
    Unsubscribe,
    Usage,
)
from edgerm_core.tasks import Reason


class Machine:
    """The master without its I/O. Give it events, do what it says, in that order."""

    def __init__(self, settings: Settings, scheduler: Scheduler, master_id: str, now: float = 0.0) -> None:
        self.state = MasterState(settings, scheduler, master_id, now)
        self._placer = Placer()

    def restore(self, records: Mapping[str, Mapping[bytes, bytes]], now: float) -> None:
        """Take up the records of an earlier run. Call before the first event.

        Raises:
            StoreError: if a record cannot be read.
        """
        self.state.now = now
        journal.restore(self.state, records)

    def next_deadline(self) -> float | None:
        """Return when to hand in `BatchEnded` even if nothing happens; None: never."""
        return self.state.next_deadline()

    def blobs_in_use(self) -> set[BlobId]:
        """Return the blobs that tasks which have not ended need."""
        return {
            blob
            for framework in self.state.frameworks.values()
            for task in framework.live.values()
            for blob in task.spec.blobs()
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Change the books as the event demands and return what is to be done.

        Parameters:
            now: seconds; never smaller than in an earlier call (the caller's clock sees to that).

        Raises:
            TransitionError: a bug in edgerm; the message was not fully applied.
        """
        state = self.state
        assert now >= state.now, "time must not go backwards"
        state.now = now
        match event:
            case Received(session_id, message):
                session = state.sessions.get(session_id)
                if session is not None:
                    self._receive(session, message)
            case SessionOpened():
                sessions.opened(state, event)
            case SessionClosed():
                sessions.closed(state, event.session_id, event.reason)
            case Heard(session_ids):
                for session_id in session_ids:
                    agents.heard_by_gateway(state, session_id)
            case Undeliverable():
                tasks.undeliverable(state, event.session_id, event.launch, event.size_bytes)
            case BlobStored(blob, size):
                state.blobs[blob] = size
                tasks.on_blob_stored(state, blob)
            case BlobRemoved(blob):
                state.blobs.pop(blob, None)
            case BatchEnded():
                self._end_batch()
        effects, state.effects = state.effects, []
        return effects

    # --- messages -----------------------------------------------------------------------------

    def _receive(self, session: Session, message: AnyMessage) -> None:
        state = self.state
        role = session.role
        if not role:
            greeting = _GREETINGS.get(type(message))
            if greeting is None:
                name = type(message).__name__
                text = f"{name} before a greeting: begin with Register, Subscribe or Greet"
                state.close_session(session.id, RefusalCode.UNEXPECTED, text)
            else:
                greeting(state, session, message)
            return
        if role != "agent" and isinstance(message, Heartbeat):
            return  # A peer that cannot be pushed to asks for what waits; the transport delivers it.
        if role == "custody":
            if isinstance(message, StatusUpdate):
                statuses.on_custody(state, session, message)
                return
        elif role == "agent":
            assert session.agent_id is not None
            agent = state.agents.get(session.agent_id)
            if agent is None or agent.session_id != session.id:
                return  # A newer connection took over; this one is being closed.
            agents.heard(state, agent)
            handler = _AGENT.get(type(message))
            if handler is not None:
                handler(state, session, agent, message)
                return
        elif role == "framework":
            assert session.framework_id is not None
            framework = state.frameworks.get(session.framework_id)
            if framework is None or framework.session_id != session.id:
                return
            if framework.state is FrameworkState.REMOVED:
                return
            handler = _FRAMEWORK.get(type(message))
            if handler is not None:
                handler(state, session, framework, message)
                return
        else:
            handler = _OPERATOR.get(type(message))
            if handler is not None:
                handler(state, session, None, message)
                return
        text = f"{type(message).__name__} is not for a peer in the role of {role}"
        state.close_session(session.id, RefusalCode.UNEXPECTED, text)

    # --- the end of a batch -------------------------------------------------------------------

    def _end_batch(self) -> None:
        state = self.state
        while (due := state.pop_due()) is not None:
            due.handle(state, due.key)
        self._placer.run(state)
        for framework in [f for f in state.frameworks.values() if f.state is FrameworkState.REMOVED]:
            frameworks.forget_if_done(state, framework)
        if state.observed:
            self._tell_observers()
        statuses.send_acknowledgements(state)
        frameworks.send_news(state)
        if state.dirty:
            # First, so that a runner that works through the list in order cannot get it wrong.
            state.effects.insert(0, Commit(journal.take_writes(state)))

    def _tell_observers(self) -> None:
        state = self.state
        for kind, key in state.dirty:
            row: dict[str, Any] | None = None
            # Not of what only the books are interested in, such as that the framework knows of its end.
            if kind == "task" and key in state.news and key in state.tasks:
                row = task_row(state, state.tasks[key])
            elif kind == "agent" and key in state.agents:
                row = agent_row(state, state.agents[key])
            elif kind == "framework" and key in state.frameworks:
                row = framework_row(state, state.frameworks[key])
            if row is not None:
                state.effects.append(Changed(kind, row))


# --- one small function per message: check whose it is, call the concern ----------------------


def _kill_tasks(
    state: MasterState, session: Session, framework: FrameworkRecord | None, message: KillTasks
) -> None:
    found = [state.tasks.get(task_id) for task_id in message.task_ids]
    mine = [t for t in found if t is not None and (framework is None or t.framework_id == framework.id)]
    if len(mine) != len(message.task_ids):
        known = {task.id for task in mine}
        missing = [format_task_id(task_id) for task_id in message.task_ids if task_id not in known]
        text = f"there is no task {', '.join(missing[:10])} (any more); nothing was killed"
        state.fail(session.id, message.request_id, RefusalCode.NOT_FOUND, text)
        return
    source = "operator" if framework is None else "framework"
    for task in mine:
        tasks.kill(state, task, Reason.KILLED_BY_REQUEST, source, message.grace_s)
    state.send(session.id, Done(message.request_id))


def _unsubscribe(
    state: MasterState, session: Session, framework: FrameworkRecord, message: Unsubscribe
) -> None:
    state.send(session.id, Done(message.request_id))
    frameworks.remove(state, framework, "it unsubscribed")


def _drain(state: MasterState, session: Session, _: None, message: Drain) -> None:
    agent = _find_agent(state, session, message.agent_id, message.request_id)
    if agent is not None:
        agents.drain(state, agent, message.undo)
        state.send(session.id, Done(message.request_id))


def _forget(state: MasterState, session: Session, _: None, message: Forget) -> None:
    agent = _find_agent(state, session, message.agent_id, message.request_id)
    if agent is not None:
        agents.forget(state, agent, "the operator declared it gone")
        state.send(session.id, Done(message.request_id))


def _find_agent(state: MasterState, session: Session, wanted: str, request_id: int) -> AgentRecord | None:
    """Return the agent with that id or unique name; otherwise answer that there is none."""
    found = [a for a in state.agents.values() if wanted == a.id]
    found = found or [a for a in state.agents.values() if wanted == a.info.name]
    if len(found) == 1:
        return found[0]
    text = f"there is no agent {wanted[:64]!r}"
    if found:
        text = f"{len(found)} agents are named {wanted!r}: use an id ({', '.join(a.id for a in found)})"
    state.fail(session.id, request_id, RefusalCode.NOT_FOUND, text)
    return None


_Handler = Callable[[MasterState, Session, Any, Any], None]

_GREETINGS: Final[dict[type, Callable[[MasterState, Session, Any], None]]] = {
    Register: agents.register,
    Subscribe: frameworks.subscribe,
    Greet: sessions.greet,
}

_AGENT: Final[dict[type, _Handler]] = {
    Heartbeat: lambda state, _, agent, __: agents.heartbeat(state, agent),
    StatusUpdate: lambda state, session, agent, m: statuses.on_status(state, agent, session.id, m),
    Inventory: lambda state, _, agent, m: agents.inventory(state, agent, m),
    Usage: lambda state, _, agent, m: statuses.on_usage(state, agent, m),
    LogData: lambda state, _, agent, m: logs.answer(state, agent.id, m),
    Register: lambda state, session, _, m: agents.register(state, session, m),
}

_FRAMEWORK: Final[dict[type, _Handler]] = {
    Submit: lambda state, session, framework, m: tasks.submit(state, framework, session.id, m),
    KillTasks: _kill_tasks,
    TaskAcknowledge: lambda state, _, framework, m: frameworks.acknowledge(state, framework, m),
    Reconcile: lambda state, session, framework, m: frameworks.reconcile(state, framework, session.id, m),
    Accept: lambda state, session, framework, m: offers.accept(state, framework, session.id, m),
    Decline: lambda state, _, framework, m: offers.decline(state, framework, m),
    Revive: lambda state, _, framework, __: offers.revive(state, framework),
    Suppress: lambda state, _, framework, __: offers.suppress(state, framework),
    Unsubscribe: _unsubscribe,
    LogGet: lambda state, session, _, m: logs.ask(state, session, m),
}

_OPERATOR: Final[dict[type, _Handler]] = {
    Query: lambda state, session, _, m: answer(state, session.id, m),
    KillTasks: _kill_tasks,
    LogGet: lambda state, session, _, m: logs.ask(state, session, m),
    Drain: _drain,
    Forget: _forget,
}
