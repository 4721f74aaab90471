"""Agents on the master: they register, keep a lease, fall silent, come back, are drained and forgotten."""

from __future__ import annotations

import logging

import msgspec

from edgerm_core.agents import AgentInfo, AgentState
from edgerm_core.errors import SpecError
from edgerm_core.ids import AgentId, SessionId, TaskId, check_name, format_task_id
from edgerm_core.limits import (
    LEASE_HEARTBEATS,
    MAX_AGENTS,
    MAX_HEARTBEATS_PER_S,
    RETAIN_AGENT_S,
)
from edgerm_core.master import logs, offers
from edgerm_core.master.orders import order_ghost_kill, order_kill, resend_orders
from edgerm_core.master.records import NO_STRAYS, AgentRecord, Session, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.master.tasks import attempt_ended, end_task, lose_attempt
from edgerm_core.messages import (
    HeartbeatAck,
    Inventory,
    RefusalCode,
    Register,
    Registered,
    TaskReport,
    negotiate,
)
from edgerm_core.tasks import Reason, TaskState

MAX_OLD_INCARNATIONS = 16

CADENCE_TOLERANCE = 0.2
"""A cadence that is off by less than this part is left alone."""


# --- coming -----------------------------------------------------------------------------------


def register(state: MasterState, session: Session, request: Register) -> None:
    """Take an agent in, or back, and bring both sides' view of its tasks together."""
    version = negotiate(request.versions)
    if version is None:
        low, high = request.versions
        text = f"no common protocol version: the agent speaks {low} to {high}; upgrade the older side"
        state.close_session(session.id, RefusalCode.VERSION, text)
        return
    info = request.info
    try:
        check_name(info.id, "agent id")
        if info.name:
            check_name(info.name, "agent name")
    except SpecError as error:
        state.close_session(session.id, RefusalCode.MALFORMED, str(error))
        return
    for report in request.tasks:
        if report.state in (TaskState.PENDING, TaskState.UNREACHABLE):
            name = f"{format_task_id(report.task_id)} as {report.state.name}"
            text = f"the agent reports task {name}, which only the master can say of a task"
            state.close_session(session.id, RefusalCode.MALFORMED, text)
            return
    agent = state.agents.get(info.id)
    if agent is None and len(state.agents) >= MAX_AGENTS:
        text = f"this master holds its limit of {MAX_AGENTS} agents"
        state.close_session(session.id, RefusalCode.LIMIT, text)
        return
    if agent is None:
        agent = AgentRecord(info)
        state.add_agent(agent)
    elif not _same_agent(state, agent, session, request) or _moved_on(state, agent, session, request):
        return
    same_process = agent.incarnation == request.incarnation
    if agent.session_id is not None and agent.session_id != session.id:
        if same_process and agent.via is None:
            # What came last need not have been said last: a Register may have been on its way for long,
            # most of all behind a gateway. Nobody is to stop for good; who is still here registers again.
            text = "this process has registered over another connection, too: register again to go on here"
            state.close_session(agent.session_id, RefusalCode.SLOW, text)
        else:
            text = (
                "a newer connection with this agent's id took over: if that is not this agent restarted, "
                "its data directory is a copy; give each agent its own"
            )
            state.close_session(agent.session_id, RefusalCode.SESSION_REPLACED, text)
        logs.agent_left(state, agent.id)
    session.role = "agent"
    session.agent_id = info.id
    agent.session_id = session.id
    agent.peer = session.peer
    agent.via = session.via
    agent.registered_at = state.now - session.age_s
    session.age_s = 0.0
    agent.max_message_bytes = min(
        session.max_message_bytes, request.max_message_bytes or session.max_message_bytes
    )
    agent.boot_id = request.boot_id
    agent.incarnation = request.incarnation
    describe(state, agent, info)
    agent.heartbeat_s = cadence(state, info)
    heard(state, agent)
    state.at(agent.lease_deadline, on_lease_deadline, agent.id)
    state.move_agent(agent, AgentState.DRAINING if agent.drain else AgentState.READY)
    state.send(session.id, Registered(version, agent.heartbeat_s, lease_s(state, agent), state.master_id))
    reconcile(state, agent, request.tasks, same_process)


def _moved_on(state: MasterState, agent: AgentRecord, session: Session, request: Register) -> bool:
    """Return whether the agent has registered elsewhere since, and end this session then.

    A gateway that was cut off registers the devices it knew again, also one that has roamed to another
    gateway meanwhile.
    """
    if (
        agent.session_id == session.id
        or agent.incarnation != request.incarnation
        or state.now - session.age_s >= agent.registered_at
    ):
        return False
    text = f"agent {agent.id} has registered elsewhere since"
    state.close_session(session.id, RefusalCode.SESSION_REPLACED, text)
    return True


def _same_agent(state: MasterState, agent: AgentRecord, session: Session, request: Register) -> bool:
    """Return whether this is the agent we know; refuse a second one with its id.

    A restarted agent comes with a new incarnation and takes over from the old one, unless the old one is
    connected from a machine that was booted at another time: then two machines share an id (a copied
    data directory, most often), and the first keeps it until its lease ends. An incarnation that was
    replaced and comes back is a second agent too.
    """
    incarnation = request.incarnation
    if incarnation == agent.incarnation:
        return True
    if agent.session_id is not None and request.boot_id != agent.boot_id:
        text = (
            f"agent {agent.id} is connected from {agent.peer}, on another machine, or on this one "
            f"before it was rebooted: that passes within {lease_s(state, agent):.0f} s; otherwise a data "
            f"directory was copied, and each agent needs its own"
        )
        state.report(logging.WARNING, f"refused {session.peer}: {text}")
        state.close_session(session.id, RefusalCode.DUPLICATE_AGENT, text)
        return False
    if incarnation in agent.old_incarnations:
        text = (
            f"another agent with the id {agent.id} is connected from {agent.peer}: was the data "
            f"directory copied? Give this one its own data directory or set agent.id"
        )
        state.report(logging.WARNING, f"refused {session.peer}: {text}")
        state.close_session(session.id, RefusalCode.DUPLICATE_AGENT, text)
        return False
    if agent.session_id is not None and session.id < agent.session_id and session.via is agent.via is None:
        # What the process before it said has been on its way for long.
        text = f"a newer connection of agent {agent.id} is here"
        state.close_session(session.id, RefusalCode.SESSION_REPLACED, text)
        return False
    if agent.incarnation:
        old = (agent.incarnation, *agent.old_incarnations)
        agent.old_incarnations = old[:MAX_OLD_INCARNATIONS]
    return True


def reconcile(
    state: MasterState,
    agent: AgentRecord,
    reports: tuple[TaskReport, ...],
    same_process: bool,
) -> None:
    """Compare what a registering agent runs with what it should run; orders are the difference.

    Parameters:
        same_process: it is the process that was connected before, which forgets no task that runs.
    """
    reported: dict[TaskId, int] = {}
    for report in reports:
        reported[report.task_id] = max(report.attempt, reported.get(report.task_id, 0))
        task = state.tasks.get(report.task_id)
        if task is not None and task.attempt == report.attempt:
            numbers_lost(state, task, report.last_seq)
        if report.state.terminal:
            # Its status update is on the way. It must not look as if it were missing, nor its launch.
            if task is not None and task.attempt == report.attempt and task.id in agent.holdings:
                confirm(state, agent, task)
            continue
        current = task is not None and task.attempt == report.attempt and task.agent_id == agent.id
        if task is None or not current or task.state.terminal:
            order_ghost_kill(state, agent, report.task_id, report.attempt)
        elif task.id in agent.holdings:
            confirm(state, agent, task)
            if task.state is TaskState.UNREACHABLE:
                come_back(state, agent, task, report)
        elif (task.id, report.attempt) in agent.ghosts:
            take_back(state, agent, task, report)
        else:
            order_ghost_kill(state, agent, report.task_id, report.attempt)
    strays = (
        (report.task_id, report.attempt)
        for report in reports
        if not report.state.terminal and not agent.books(report.task_id, report.attempt)
    )
    agent.strays = frozenset(strays) or NO_STRAYS
    state.refresh_schedulable(agent)
    for task_id, attempt in list(agent.ghosts):
        if reported.get(task_id, 0) < attempt:
            state.drop_ghost(agent, task_id, attempt)
    for task_id, holding in list(agent.holdings.items()):
        if reported.get(task_id, 0) < holding.attempt:
            missing(state, agent, state.tasks[task_id], same_process)
    resend_orders(state, agent, at_once=True)


def numbers_lost(state: MasterState, task: TaskRecord, last_seq: int | None) -> None:
    """After a power cut an agent may have forgotten numbers of updates, and will use them again."""
    task.said_seq = last_seq
    if last_seq is not None and last_seq < task.status_seq:
        task.status_seq = last_seq
        state.dirty["task", task.id] = None


def confirm(state: MasterState, agent: AgentRecord, task: TaskRecord) -> None:
    """The agent says that it has the attempt: its launch need not be repeated."""
    if not task.confirmed:
        task.confirmed = True
        state.dirty["task", task.id] = None
    if not task.kill_reason:
        agent.unconfirmed.pop(task.id, None)


def come_back(state: MasterState, agent: AgentRecord, task: TaskRecord, report: TaskReport) -> None:
    """An UNREACHABLE task's agent is back, and the task still runs there."""
    task.restarts = report.restarts
    if task.kill_reason:
        state.move_task(task, TaskState.KILLING, task.kill_reason, "master", "its agent is back")
        order_kill(state, agent, task)
    else:
        state.move_task(task, report.state, Reason.AGENT_RETURNED, "agent")


def take_back(state: MasterState, agent: AgentRecord, task: TaskRecord, report: TaskReport) -> None:
    """A task that waits for its replacement runs after all: keep that run instead of a second start."""
    state.unqueue_task(task)
    task.confirmed = True
    state.from_ghost(agent, task.id, report.attempt)
    task.restarts = report.restarts
    text = "its agent came back before a replacement was placed"
    state.move_task(task, report.state, Reason.AGENT_RETURNED, "agent", text)


def missing(state: MasterState, agent: AgentRecord, task: TaskRecord, same_process: bool) -> None:
    """The agent does not know an attempt that it should run. Parameters as in `reconcile`."""
    if same_process:
        # It never confirmed the launch: the order was lost and goes out again.
        if task.confirmed:
            # Or it ended, and somebody acknowledged that who could not tell us yet: a gateway that is cut
            # off. The agent answers a repeated order with how the attempt ended; if the gateway is first,
            # good.
            task.status_seq = 0
            state.dirty["task", task.id] = None
        if task.state is TaskState.UNREACHABLE and not task.kill_reason:
            state.move_task(task, TaskState.STAGING, Reason.AGENT_RETURNED, "master")
        agent.unconfirmed[task.id] = None
        return
    # Not even a launch that was never confirmed is repeated to another process: the one before may have run
    # it at a gateway that was cut off, which knows how it ended and cannot tell us.
    text = "its agent came back without it" if task.confirmed else "its agent was restarted meanwhile"
    attempt_ended(state, task, TaskState.FAILED, Reason.AGENT_RESTARTED, text, "agent")


# --- being there ------------------------------------------------------------------------------


def heard(state: MasterState, agent: AgentRecord) -> None:
    """The agent said something: its lease begins anew."""
    agent.last_heard = state.now
    agent.lease_deadline = state.now + lease_s(state, agent)


def heartbeat(state: MasterState, agent: AgentRecord, *, by_gateway: bool = False) -> None:
    """Answer a heartbeat: new cadence if it changed, and orders that were not confirmed.

    Parameters:
        by_gateway: the agent's gateway has heard it, and has answered already.
    """
    wanted_s = cadence(state, agent.info)
    if abs(wanted_s - agent.heartbeat_s) > CADENCE_TOLERANCE * agent.heartbeat_s:
        agent.heartbeat_s = wanted_s
        heard(state, agent)
        state.send(agent.session_id, HeartbeatAck(wanted_s, lease_s(state, agent)))
    elif not by_gateway:
        state.send(agent.session_id, HeartbeatAck())
    if agent.unconfirmed:
        resend_orders(state, agent)


def heard_by_gateway(state: MasterState, session_id: SessionId) -> None:
    """An agent lives, says its gateway. Orders that it has not confirmed are repeated as with a
    heartbeat of its own."""
    session = state.sessions.get(session_id)
    agent = state.agents.get(session.agent_id) if session is not None and session.agent_id else None
    if agent is not None and agent.session_id == session_id:
        heard(state, agent)
        heartbeat(state, agent, by_gateway=True)


def inventory(state: MasterState, agent: AgentRecord, change: Inventory) -> None:
    """Take over what is different now."""
    changes = {
        name: value
        for name in ("totals", "attributes", "devices", "executors")
        if (value := getattr(change, name)) is not None
    }
    info: AgentInfo = msgspec.structs.replace(agent.info, **changes)
    describe(state, agent, info)


def describe(state: MasterState, agent: AgentRecord, info: AgentInfo) -> None:
    """Take over what an agent says about itself; offers of what it no longer has are void."""
    state.describe_agent(agent, lambda: agent.describe(info))
    if agent.overbooked:
        offers.rescind_agent(state, agent)


def cadence(state: MasterState, info: AgentInfo) -> float:
    """Return the agent's heartbeat interval in seconds: by link class, stretched under load."""
    settings = state.settings
    constrained = info.attributes.get("link.class") == "constrained"
    base_s = settings.heartbeat_constrained_s if constrained else settings.heartbeat_s
    return max(base_s, len(state.agents) / MAX_HEARTBEATS_PER_S)


def lease_s(state: MasterState, agent: AgentRecord) -> float:
    """Return how long the agent may be silent, in seconds."""
    return agent.heartbeat_s * LEASE_HEARTBEATS + state.settings.lease_grace_s


# --- going ------------------------------------------------------------------------------------


def session_ended(state: MasterState, agent: AgentRecord) -> None:
    """The agent's connection is gone. Its lease runs on; it gets nothing new until it is back."""
    agent.session_id = None
    state.refresh_schedulable(agent)
    logs.agent_left(state, agent.id)


def on_lease_deadline(state: MasterState, agent_id: AgentId) -> None:
    """Look whether the lease has really run out, and come back later if it was renewed."""
    agent = state.agents.get(agent_id)
    if agent is None or agent.state in (AgentState.UNREACHABLE, AgentState.GONE):
        return
    if agent.lease_deadline > state.now:
        state.at(agent.lease_deadline, on_lease_deadline, agent_id)
        return
    unreachable(state, agent)


def unreachable(state: MasterState, agent: AgentRecord) -> None:
    """The agent has been silent for too long: so are its tasks, until it comes back or they are lost."""
    silent_s = state.now - agent.last_heard
    if agent.session_id is not None:
        text = f"silent for {silent_s:.0f} s, longer than its lease"
        state.close_session(agent.session_id, RefusalCode.SLOW, text)
        session_ended(state, agent)
    state.move_agent(agent, AgentState.UNREACHABLE, f"silent for {silent_s:.0f} s")
    agent.unreachable_since = state.now
    offers.rescind_agent(state, agent)
    state.at(state.now + RETAIN_AGENT_S, on_retention_over, (agent.id, state.now))
    for task_id in list(agent.holdings):
        task = state.tasks[task_id]
        message = "what happens next: " + next_step(task)
        state.move_task(task, TaskState.UNREACHABLE, Reason.AGENT_UNREACHABLE, "master", message)
        arm_loss(state, task)


def arm_loss(state: MasterState, task: TaskRecord) -> None:
    """Come back when an UNREACHABLE task's patience is over."""
    state.at(state.now + task.spec.disconnect.lost_after_s, on_patience_over, (task.id, task.attempt))


def next_step(task: TaskRecord) -> str:
    """Return in words what becomes of an UNREACHABLE task if its agent stays away."""
    policy = task.spec.disconnect
    if task.kill_reason and task.kill_reason != Reason.AGENT_DRAINING:
        return f"counts as killed after {policy.lost_after_s:g} s"
    if policy.replace:
        return f"placed elsewhere after {policy.lost_after_s:g} s"
    return "waits for its agent, however long that takes"


def on_patience_over(state: MasterState, key: tuple[TaskId, int]) -> None:
    """A task has been UNREACHABLE for as long as its policy allows."""
    task_id, attempt = key
    task = state.tasks.get(task_id)
    if task is None or task.state is not TaskState.UNREACHABLE or task.attempt != attempt:
        return
    assert task.agent_id is not None
    agent = state.agents[task.agent_id]
    since = state.now - agent.unreachable_since
    if since + 1e-6 < task.spec.disconnect.lost_after_s:
        return  # The agent was back in between; a later deadline is armed.
    silent_s = state.now - agent.last_heard
    text = f"its agent {agent.info.name or agent.id} has been silent for {silent_s:.0f} s"
    if task.kill_reason and task.kill_reason != Reason.AGENT_DRAINING:
        state.to_ghost(agent, task.id)
        agent.unconfirmed.pop(task.id, None)
        text += "; stopped if it returns"
        end_task(state, task, TaskState.KILLED, task.kill_reason, "master", text)
    elif task.spec.disconnect.replace:
        state.to_ghost(agent, task.id)
        agent.unconfirmed.pop(task.id, None)
        lose_attempt(state, task, Reason.AGENT_UNREACHABLE, text, "master")


def on_retention_over(state: MasterState, key: tuple[AgentId, float]) -> None:
    """An agent has been unreachable for so long that it is taken to be gone."""
    agent_id, since = key
    agent = state.agents.get(agent_id)
    if agent is None or agent.state is not AgentState.UNREACHABLE or agent.unreachable_since != since:
        return
    forget(state, agent, "unreachable for too long")


def drain(state: MasterState, agent: AgentRecord, undo: bool) -> None:
    """Give the agent no new tasks and move its tasks away, or let it work again. Idempotent."""
    agent.drain = not undo
    state.dirty["agent", agent.id] = None
    if agent.state in (AgentState.READY, AgentState.DRAINING):
        state.move_agent(agent, AgentState.READY if undo else AgentState.DRAINING)
    if undo:
        return
    offers.rescind_agent(state, agent)
    for task_id in list(agent.holdings):
        task = state.tasks[task_id]
        if task.kill_reason or task.state is TaskState.UNREACHABLE:
            continue
        task.kill_reason = Reason.AGENT_DRAINING
        text = f"agent {agent.info.name or agent.id} is drained; the task moves elsewhere"
        state.move_task(task, TaskState.KILLING, Reason.AGENT_DRAINING, "operator", text)
        order_kill(state, agent, task)


def forget(state: MasterState, agent: AgentRecord, text: str) -> None:
    """Declare an agent gone for good: its tasks are lost now, its record goes."""
    if agent.session_id is not None:
        state.close_session(agent.session_id, RefusalCode.REMOVED, f"the agent was removed: {text}")
        session_ended(state, agent)
    offers.rescind_agent(state, agent)
    state.move_agent(agent, AgentState.GONE, text)
    message = f"its agent {agent.info.name or agent.id} is gone: {text}"
    for task_id in list(agent.holdings):
        task = state.tasks[task_id]
        state.release(agent, task_id)
        if task.state is not TaskState.UNREACHABLE:
            state.move_task(task, TaskState.UNREACHABLE, Reason.AGENT_REMOVED, "operator", message)
        lose_attempt(state, task, Reason.AGENT_REMOVED, message, "master")
    state.remove_agent(agent)
    for framework in state.frameworks.values():
        framework.filters.pop(agent.id, None)
