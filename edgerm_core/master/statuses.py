"""Status updates: what agents say happened, taken in order, once, and acknowledged when durable."""

from __future__ import annotations

import logging

from edgerm_core.agents import AgentState
from edgerm_core.ids import SessionId, format_task_id
from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.master.orders import order_ghost_kill, order_kill
from edgerm_core.master.records import AgentRecord, Session, TaskRecord, UsageRecord
from edgerm_core.master.state import MasterState
from edgerm_core.master.tasks import attempt_ended
from edgerm_core.messages import Acknowledge, StatusUpdate, Usage
from edgerm_core.tasks import LOSSES, TRANSITIONS, TaskState

REPORTABLE = frozenset(
    {
        TaskState.STARTING,
        TaskState.RUNNING,
        TaskState.KILLING,
        TaskState.FINISHED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.ERROR,
        TaskState.DROPPED,
    }
)
"""States an agent may report; the others are the master's to decide."""


def on_status(state: MasterState, agent: AgentRecord, session_id: SessionId, update: StatusUpdate) -> None:
    """Take in one status update.

    Of the current attempt, each update counts that is later than the last one; one that was seen
    before is acknowledged again. Who holds updates for long may leave out what later ones supersede, so
    numbers may be missing. Of any other attempt, everything is acknowledged and a run that goes on is
    killed.
    """
    if update.state not in REPORTABLE:
        acknowledge(state, session_id, update)
        return
    task = state.tasks.get(update.task_id)
    if task is not None:
        take_back_end(state, agent, task, update)
    if task is None or update.attempt != task.attempt or update.task_id not in agent.holdings:
        on_stale_status(state, agent, session_id, update)
        return
    acknowledge(state, session_id, update)
    if task.said_seq is not None:
        task.said_seq = max(task.said_seq, update.seq)
    if update.seq <= task.status_seq or task.state.terminal:
        return
    task.status_seq = update.seq
    task.confirmed = True
    take_in(state, agent, task, update)


def on_custody(state: MasterState, session: Session, update: StatusUpdate) -> None:
    """Take in what an agent that is not there any more once said to a gateway.

    An end counts wherever the agent is. How its tasks stood until then does not once the agent is
    UNREACHABLE: how they stand now comes with its registration. Nor does it if the agent is here, and has
    not given that number: a power cut took it from its memory, and it will give it to something else.
    """
    agent = state.agents.get(session.agent_id) if session.agent_id else None
    if agent is None or (
        not update.state.terminal
        and (agent.state is AgentState.UNREACHABLE or _forgotten(state, agent, update))
    ):
        acknowledge(state, session.id, update)
        return
    on_status(state, agent, session.id, update)


def _forgotten(state: MasterState, agent: AgentRecord, update: StatusUpdate) -> bool:
    task = state.tasks.get(update.task_id)
    return (
        agent.session_id is not None
        and task is not None
        and task.attempt == update.attempt
        and task.said_seq is not None
        and update.seq > task.said_seq
    )


def take_back_end(state: MasterState, agent: AgentRecord, task: TaskRecord, update: StatusUpdate) -> None:
    """A run that was given up has ended before a replacement was placed: let its end count after all."""
    if (
        update.state in (TaskState.FINISHED, TaskState.FAILED, TaskState.ERROR)
        and update.reason not in LOSSES
        and task.state is TaskState.PENDING
        and update.attempt == task.attempt
        and (task.id, task.attempt) in agent.ghosts
    ):
        state.unqueue_task(task)
        state.from_ghost(agent, task.id, task.attempt)


def on_usage(state: MasterState, agent: AgentRecord, message: Usage) -> None:
    """Note what tasks use, for listings. Not a change: nothing is written and nobody is told."""
    for figures in message.tasks:
        task = state.tasks.get(figures.task_id)
        if task is not None and figures.attempt == task.attempt and task.agent_id == agent.id:
            task.usage = UsageRecord(figures, state.now, task.usage)


def take_in(state: MasterState, agent: AgentRecord, task: TaskRecord, update: StatusUpdate) -> None:
    """Apply the next update of the current attempt."""
    restarted = update.restarts != task.restarts
    task.restarts = update.restarts
    if update.state.terminal:
        task.exit_code = update.exit_code
        task.signal = update.signal
        task.result = update.result
        message = update.message
        if task.result is not None and len(task.result) > MAX_RESULT_BYTES:
            task.result = None
            message = f"result dropped: larger than {MAX_RESULT_BYTES} bytes. {message}"
        attempt_ended(state, task, update.state, update.reason, message, "agent")
        return
    if not task.kill_reason:
        agent.unconfirmed.pop(task.id, None)
        if update.state is not task.state and update.state not in TRANSITIONS[task.state]:
            state.dirty["task", task.id] = None
            step = f"from {task.state.name} to {update.state.name}"
            text = f"agent {agent.info.name or agent.id} says that {format_task_id(task.id)} went {step}"
            state.report(logging.WARNING, f"{text}, which cannot be: left out")
            if restarted:
                state.note(task, task.reason, "agent", task.message)
            return
        state.move_task(task, update.state, update.reason, "agent", update.message)
    elif update.state is TaskState.KILLING:
        # Confirmed; the end will be reported by itself.
        agent.unconfirmed.pop(task.id, None)
        state.note(task, task.kill_reason, "agent", update.message)
    else:
        # It started although a kill is on its way: the kill still holds.
        state.dirty["task", task.id] = None
        if task.state is not TaskState.KILLING:
            state.move_task(task, TaskState.KILLING, task.kill_reason, "master")
            order_kill(state, agent, task)
        elif restarted:
            # What a framework is told differs, so it needs a version of its own.
            state.note(task, task.kill_reason, "agent", update.message)


def on_stale_status(
    state: MasterState, agent: AgentRecord, session_id: SessionId, update: StatusUpdate
) -> None:
    """News of an attempt that no longer counts here: let the agent forget it, and stop it."""
    acknowledge(state, session_id, update)
    if update.state.terminal:
        state.drop_ghost(agent, update.task_id, update.attempt)
        if (update.task_id, update.attempt) in agent.strays:
            agent.strays -= {(update.task_id, update.attempt)}
            state.refresh_schedulable(agent)
    else:
        order_ghost_kill(state, agent, update.task_id, update.attempt)


def acknowledge(state: MasterState, session_id: SessionId, update: StatusUpdate) -> None:
    """Owe the agent an acknowledgement, sent once the batch is durable."""
    key = (session_id, update.task_id, update.attempt)
    owed = state.owed_acknowledgements
    owed[key] = max(owed.get(key, 0), update.seq)


def send_acknowledgements(state: MasterState) -> None:
    """Send what is owed."""
    for (session_id, task_id, attempt), seq in state.owed_acknowledgements.items():
        state.send(session_id, Acknowledge(task_id, attempt, seq))
    state.owed_acknowledgements.clear()
