"""Frameworks on the master: they subscribe, fail over, reconcile, stay away, and are removed."""

from __future__ import annotations

from edgerm_core.errors import SpecError
from edgerm_core.frameworks import FrameworkState, check_framework
from edgerm_core.ids import FrameworkId, SessionId, TaskId
from edgerm_core.limits import MAX_FRAMEWORKS, RETAIN_FRAMEWORK_S
from edgerm_core.master import logs, offers
from edgerm_core.master.records import FrameworkRecord, Session, TaskRecord
from edgerm_core.master.state import MasterState
from edgerm_core.master.tasks import forget_task, kill
from edgerm_core.messages import (
    Reconcile,
    Reconciled,
    RefusalCode,
    Subscribe,
    Subscribed,
    TaskAcknowledge,
    TaskUpdate,
    negotiate,
)
from edgerm_core.tasks import Reason


def subscribe(state: MasterState, session: Session, request: Subscribe) -> None:
    """Take a framework in, or back; a newer session replaces the older one (Mesos: failover)."""
    version = negotiate(request.versions)
    if version is None:
        low, high = request.versions
        text = f"no common protocol version: the framework speaks {low} to {high}; upgrade the older side"
        state.close_session(session.id, RefusalCode.VERSION, text)
        return
    info = request.info
    try:
        check_framework(info)
    except SpecError as error:
        state.close_session(session.id, RefusalCode.MALFORMED, str(error))
        return
    framework = state.frameworks.get(info.id)
    known = framework is not None
    if framework is None:
        if len(state.frameworks) >= MAX_FRAMEWORKS:
            text = f"this master holds its limit of {MAX_FRAMEWORKS} frameworks"
            state.close_session(session.id, RefusalCode.LIMIT, text)
            return
        framework = FrameworkRecord(info, state.now)
        state.frameworks[info.id] = framework
    elif framework.state is FrameworkState.REMOVED:
        text = f"framework {info.id} was removed and its tasks are being killed; use another id"
        state.close_session(session.id, RefusalCode.REMOVED, text)
        return
    if framework.session_id is not None and framework.session_id != session.id:
        text = "a newer connection with the same framework id took over"
        state.close_session(framework.session_id, RefusalCode.SESSION_REPLACED, text)
        logs.asker_left(state, framework.session_id)
        offers.drop_framework_offers(state, framework)
    session.role = "framework"
    session.framework_id = info.id
    framework.info = info
    framework.session_id = session.id
    framework.suppressed = False
    state.move_framework(framework, FrameworkState.CONNECTED)
    state.send(session.id, Subscribed(version, known, state.master_id))


def session_ended(state: MasterState, framework: FrameworkRecord) -> None:
    """The framework's connection is gone: its offers are void, its tasks run on."""
    framework.session_id = None
    offers.drop_framework_offers(state, framework)
    framework.filters.clear()
    if framework.state is FrameworkState.REMOVED:
        return
    framework.disconnected_at = state.now
    state.move_framework(framework, FrameworkState.DISCONNECTED)
    arm_timeouts(state, framework)


def arm_timeouts(state: MasterState, framework: FrameworkRecord) -> None:
    """Come back when a disconnected framework has stayed away for too long."""
    key = (framework.id, framework.disconnected_at)
    if framework.info.failover_timeout_s is not None:
        state.at(state.now + framework.info.failover_timeout_s, on_failover_timeout, key)
    state.at(state.now + RETAIN_FRAMEWORK_S, on_retention_over, key)


def on_failover_timeout(state: MasterState, key: tuple[FrameworkId, float]) -> None:
    """The framework stayed away for longer than it said it would."""
    framework = _still_away(state, key)
    if framework is not None:
        remove(state, framework, "its failover timeout passed")


def on_retention_over(state: MasterState, key: tuple[FrameworkId, float]) -> None:
    """The framework has been away for long; without live tasks it is forgotten."""
    framework = _still_away(state, key)
    if framework is None:
        return
    if framework.live:
        state.at(state.now + RETAIN_FRAMEWORK_S, on_retention_over, key)
    else:
        forget(state, framework)


def _still_away(state: MasterState, key: tuple[FrameworkId, float]) -> FrameworkRecord | None:
    framework_id, since = key
    framework = state.frameworks.get(framework_id)
    if framework is None or framework.state is not FrameworkState.DISCONNECTED:
        return None
    return framework if framework.disconnected_at == since else None


def remove(state: MasterState, framework: FrameworkRecord, text: str) -> None:
    """Tear a framework down: kill its tasks; its record goes when the last of them has ended."""
    state.move_framework(framework, FrameworkState.REMOVED)
    offers.drop_framework_offers(state, framework)
    for task in list(framework.live.values()):
        kill(state, task, Reason.FRAMEWORK_REMOVED, "framework")
    forget_if_done(state, framework)


def forget_if_done(state: MasterState, framework: FrameworkRecord) -> None:
    """Forget a removed framework once nothing of it runs any more."""
    if framework.state is FrameworkState.REMOVED and not framework.live:
        forget(state, framework)


def forget(state: MasterState, framework: FrameworkRecord) -> None:
    """Remove a framework and its ended tasks from the books."""
    for task in list(framework.ended.values()):
        forget_task(state, task)
    if framework.session_id is not None:
        text = f"framework {framework.id} was removed"
        state.close_session(framework.session_id, RefusalCode.REMOVED, text)
    del state.frameworks[framework.id]
    state.dirty["framework", framework.id] = None
    state.framework_changes.add(framework.id)


# --- what frameworks hear ---------------------------------------------------------------------


def task_update(state: MasterState, task: TaskRecord) -> TaskUpdate:
    """Return where a task stands, as its framework is told."""
    agent = state.agents.get(task.agent_id) if task.agent_id else None
    return TaskUpdate(
        task.id,
        task.version,
        task.state,
        task.reason,
        task.message,
        task.agent_id or "",
        task.attempt,
        task.restarts,
        task.exit_code,
        task.signal,
        task.result,
        agent.info.name if agent else "",
    )


def send_news(state: MasterState) -> None:
    """Tell frameworks about the tasks that changed in this batch, once each, as they stand now."""
    for task_id in state.news:
        task = state.tasks.get(task_id)
        if task is not None:
            framework = state.frameworks[task.framework_id]
            if framework.session_id is not None:
                state.send(framework.session_id, task_update(state, task))
    state.news.clear()


def reconcile(
    state: MasterState, framework: FrameworkRecord, session_id: SessionId, request: Reconcile
) -> None:
    """Send where tasks stand: those asked for, or all that have not ended."""
    unknown: list[TaskId] = []
    wanted = request.task_ids or tuple(framework.live)
    for task_id in dict.fromkeys(wanted):
        task = framework.live.get(task_id) or framework.ended.get(task_id)
        if task is None:
            unknown.append(task_id)
        else:
            state.send(session_id, task_update(state, task))
    state.send(session_id, Reconciled(request.request_id, tuple(unknown)))


def acknowledge(state: MasterState, framework: FrameworkRecord, request: TaskAcknowledge) -> None:
    """The framework has seen these ends; they may be forgotten when room is needed."""
    for task_id in request.task_ids:
        task = framework.ended.get(task_id)
        if task is not None and not task.acknowledged:
            task.acknowledged = True
            state.dirty["task", task_id] = None
