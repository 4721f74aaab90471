"""A task's life on the master: submitted, placed, ended, tried again, forgotten."""

from __future__ import annotations

from typing import Any

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.frameworks import FrameworkState
from edgerm_core.ids import AgentId, SessionId, TaskId
from edgerm_core.limits import (
    MAX_LIVE_TASKS,
    MAX_PENDING_TASKS_PER_FRAMEWORK,
    MAX_SPEC_BYTES,
    MAX_SUBMIT_TASKS,
)
from edgerm_core.master.orders import order_kill, order_launch
from edgerm_core.master.records import AgentRecord, FrameworkRecord, Holding, TaskRecord, fair_amounts
from edgerm_core.master.state import MasterState
from edgerm_core.messages import Launch, RefusalCode, Submit, Submitted
from edgerm_core.resources import Resources
from edgerm_core.tasks import LOSSES, Reason, TaskSpec, TaskState, check_spec

MAX_AVOIDED_AGENTS = 8
"""Remembered per task; enough to get away from a bad corner of the cluster."""

MAX_KEY_CHARS = 128

ENDED_SLACK = 2
"""Ends a framework has not seen are kept up to this many times the ordinary retention."""


# --- in ---------------------------------------------------------------------------------------


def check_submission(
    framework: FrameworkRecord, state: MasterState, keys: tuple[str, ...], specs: tuple[TaskSpec, ...]
) -> tuple[str, str] | None:
    """Return (code, sentence) if these specs cannot be taken in, or None."""
    if len(keys) != len(specs):
        return RefusalCode.MALFORMED, f"{len(specs)} specs came with {len(keys)} keys"
    count = 0
    for key, spec in zip(keys, specs, strict=True):
        if not 0 < len(key) <= MAX_KEY_CHARS:
            return RefusalCode.SPEC, f"a task's key must have 1 to {MAX_KEY_CHARS} characters"
        if key in framework.keys:
            continue
        try:
            check_spec(spec)
        except SpecError as error:
            return RefusalCode.SPEC, str(error)
        size = len(msgspec.msgpack.encode(spec))
        if size > MAX_SPEC_BYTES:
            text = f"task {spec.name}: its spec has {size} bytes, more than the {MAX_SPEC_BYTES} allowed"
            return RefusalCode.SPEC, f"{text}; put large data into files"
        count += spec.instances
    if count > MAX_SUBMIT_TASKS:
        return RefusalCode.LIMIT, f"{count} tasks in one submission; at most {MAX_SUBMIT_TASKS} are taken"
    waiting = len(framework.live)
    if waiting + count > MAX_PENDING_TASKS_PER_FRAMEWORK:
        return (
            RefusalCode.LIMIT,
            f"framework {framework.id} has {waiting} live tasks; with {count} more it would exceed the "
            f"{MAX_PENDING_TASKS_PER_FRAMEWORK} allowed: wait for some to end",
        )
    if len(state.tasks) + count > MAX_LIVE_TASKS:
        return RefusalCode.LIMIT, f"the master holds its limit of {MAX_LIVE_TASKS} tasks; try again later"
    return None


def submit(state: MasterState, framework: FrameworkRecord, session_id: SessionId, request: Submit) -> None:
    """Take tasks in, all or none; a key that is known answers with the tasks it made before."""
    problem = check_submission(framework, state, request.keys, request.specs)
    if problem is not None:
        state.fail(session_id, request.request_id, *problem)
        return
    ids = tuple(
        submit_one(state, framework, key, spec)
        for key, spec in zip(request.keys, request.specs, strict=True)
    )
    state.send(session_id, Submitted(request.request_id, ids))


def submit_one(
    state: MasterState, framework: FrameworkRecord, key: str, spec: TaskSpec
) -> tuple[TaskId, ...]:
    """Make the tasks of one checked spec and let them wait for their placement."""
    known = framework.keys.get(key)
    if known is not None:
        return known
    tasks = [new_task(state, framework, key, index, spec) for index in range(spec.instances)]
    framework.keys[key] = tuple(task.id for task in tasks)
    for task in tasks:
        admit(state, task)
    return framework.keys[key]


def new_task(
    state: MasterState, framework: FrameworkRecord, key: str, index: int, spec: TaskSpec
) -> TaskRecord:
    """Make one task and put it on the books, PENDING but not yet waiting for a placement."""
    task_id = TaskId(state.next_task_id)
    state.next_task_id += 1
    state.dirty["meta", ""] = None
    task = TaskRecord(task_id, framework.id, key, index, spec, state.now)
    state.tasks[task_id] = task
    framework.live[task_id] = task
    state.dirty["spec", task_id] = None
    state.note(task, Reason.SUBMITTED, "framework")
    return task


def admit(state: MasterState, task: TaskRecord) -> None:
    """Let a PENDING task wait for what it needs next: a blob, a delay, or a placement."""
    missing = sorted(blob for blob in task.spec.blobs() if blob not in state.blobs)
    if missing:
        for blob in missing:
            state.waiting_blobs.setdefault(blob, set()).add(task.id)
        text = f"not uploaded yet: {', '.join(blob.hex()[:12] for blob in missing)}"
        if (task.reason, task.message) != (
            Reason.WAITING_BLOB,
            text,
        ):  # Else a restart would tell it again.
            state.note(task, Reason.WAITING_BLOB, "master", text)
    elif task.not_before > state.now:
        state.at(task.not_before, on_delay_over, task.id)
    else:
        state.queue_task(task)


def on_delay_over(state: MasterState, task_id: TaskId) -> None:
    """A task's delay before its next attempt is over, unless something else happened to it."""
    task = state.tasks.get(task_id)
    if task is None or task.state is not TaskState.PENDING or task.not_before > state.now:
        return
    if task_id not in state.frameworks[task.framework_id].pending:
        admit(state, task)


def on_blob_stored(state: MasterState, blob: Any) -> None:
    """A blob arrived: the tasks that waited for it go on."""
    for task_id in sorted(state.waiting_blobs.pop(blob, ())):
        task = state.tasks.get(task_id)
        if task is None or task.state is not TaskState.PENDING:
            continue
        if all(needed in state.blobs for needed in task.spec.blobs()):
            state.note(task, Reason.WAITING_RESOURCES, "master", "all it needs has been uploaded")
            admit(state, task)


# --- onto an agent ----------------------------------------------------------------------------


def place(
    state: MasterState,
    task: TaskRecord,
    agent: AgentRecord,
    implementation: int,
    granted: Resources,
    reason: str = Reason.PLACED,
) -> None:
    """Start a new attempt of a PENDING task on an agent. The caller has checked that it fits."""
    state.unqueue_task(task)
    task.attempt += 1
    task.agent_id = agent.id
    task.implementation = implementation
    task.resources = granted
    task.restarts = 0
    task.status_seq = 0
    task.said_seq = None
    task.confirmed = False
    task.exit_code = task.signal = task.result = None
    charge = fair_amounts(granted, agent.devices)
    state.hold(agent, Holding(task.id, task.attempt, task.framework_id, granted, charge))
    state.move_task(task, TaskState.STAGING, reason, "master")
    order_launch(state, agent, task)


def undeliverable(state: MasterState, session_id: SessionId, launch: Launch, size_bytes: int) -> None:
    """A Launch is larger than its agent's connection takes: the task goes elsewhere."""
    session = state.sessions.get(session_id)
    task = state.tasks.get(launch.task_id)
    if session is None or task is None or session.agent_id is None:
        return
    agent = state.agents.get(session.agent_id)
    if agent is None or task.attempt != launch.attempt or task.id not in agent.holdings:
        return
    text = (
        f"its launch has {size_bytes} bytes, more than the {agent.max_message_bytes} that the connection "
        f"of agent {agent.info.name or agent.id} takes"
    )
    attempt_ended(state, task, TaskState.DROPPED, Reason.LAUNCH_TOO_LARGE, text, "master")


def kill(
    state: MasterState, task: TaskRecord, reason: str, source: str, grace_s: float | None = None
) -> None:
    """Make a task end; one that has ended stays as it is."""
    if task.state.terminal:
        return
    if task.state is TaskState.PENDING:
        end_task(state, task, TaskState.KILLED, reason, source, "it had not been placed")
        return
    if task.kill_reason and task.kill_reason != Reason.AGENT_DRAINING:
        return
    task.kill_reason = reason
    task.kill_grace_s = grace_s
    assert task.agent_id is not None
    agent = state.agents[task.agent_id]
    if task.state is TaskState.UNREACHABLE:
        text = "its agent is away; it is stopped as soon as the agent is back"
        state.note(task, Reason.KILL_REQUESTED, source, text)
        agent.unconfirmed[task.id] = None
        return
    state.move_task(task, TaskState.KILLING, reason, source)
    order_kill(state, agent, task)


# --- out --------------------------------------------------------------------------------------


def attempt_ended(
    state: MasterState,
    task: TaskRecord,
    reported: TaskState,
    reason: str,
    message: str,
    source: str,
) -> None:
    """The current attempt is over: end the task, or try again as its policies say.

    What the agent reported (exit code, result, …) is already in the record.
    """
    assert task.agent_id is not None
    agent = state.agents.get(task.agent_id)
    if agent is not None:
        state.release(agent, task.id)
        agent.unconfirmed.pop(task.id, None)
    moving = task.kill_reason == Reason.AGENT_DRAINING
    if reported in (TaskState.FINISHED, TaskState.ERROR):
        end_task(state, task, reported, reason, source, message)
    elif task.kill_reason and not moving:
        end_task(state, task, TaskState.KILLED, task.kill_reason, source, message)
    elif moving or reported is TaskState.DROPPED or reason in LOSSES:
        lose_attempt(state, task, reason, message, source, counted=not moving)
    elif reported is TaskState.KILLED:
        end_task(state, task, reported, reason, source, message)
    else:
        task.failures += 1
        policy = task.spec.reschedule
        if task.failures > policy.failures:
            end_task(state, task, TaskState.FAILED, reason, source, message)
        else:
            delay_s = min(policy.max_delay_s, policy.delay_s * 2.0 ** min(task.failures - 1, 60))
            text = f"failed ({reason}{': ' + message if message else ''}); tried again elsewhere"
            try_again(state, task, Reason.RESCHEDULED, text, delay_s, agent_id=task.agent_id)


def lose_attempt(
    state: MasterState,
    task: TaskRecord,
    reason: str,
    message: str,
    source: str,
    *,
    counted: bool = True,
) -> None:
    """The current attempt was lost through no fault of the task; its resources are off the books."""
    policy = task.spec.reschedule
    if counted:
        task.losses += 1
    if task.kill_reason and task.kill_reason != Reason.AGENT_DRAINING:
        end_task(state, task, TaskState.KILLED, task.kill_reason, source, message)
        return
    task.kill_reason = ""
    if task.losses > policy.losses:
        if reason in (Reason.AGENT_REMOVED, Reason.AGENT_UNREACHABLE):
            final = TaskState.GONE
        else:
            final = TaskState.FAILED if task.confirmed else TaskState.DROPPED
        text = f"lost {task.losses} times, last: {message or reason}"
        why = Reason.TOO_MANY_LOSSES if policy.losses else reason
        end_task(state, task, final, why, source, text)
        return
    # The first loss is usually a machine's and not the task's: try again at once.
    delay_s = policy.delay_s * 2.0 ** min(task.losses - 2, 60) if task.losses > 1 else 0.0
    text = message or "its agent could not go on with it"
    try_again(state, task, reason, text, min(policy.max_delay_s, delay_s), agent_id=task.agent_id)


def try_again(
    state: MasterState,
    task: TaskRecord,
    reason: str,
    message: str,
    delay_s: float,
    agent_id: AgentId | None,
) -> None:
    """Put a task whose attempt is over back into the queue, to run elsewhere if there is elsewhere."""
    if agent_id is not None:
        task.avoid = frozenset([agent_id, *sorted(task.avoid)][:MAX_AVOIDED_AGENTS])
    task.not_before = state.now + delay_s
    state.move_task(task, TaskState.PENDING, reason, "master", message)
    admit(state, task)


def end_task(
    state: MasterState, task: TaskRecord, final: TaskState, reason: str, source: str, message: str = ""
) -> None:
    """Take a task to its end. Its resources must be off the books, or on a ghost."""
    state.unqueue_task(task)
    for blob in task.spec.blobs():
        waiting = state.waiting_blobs.get(blob)
        if waiting is not None:
            waiting.discard(task.id)
            if not waiting:
                del state.waiting_blobs[blob]
    state.move_task(task, final, reason, source, message)
    framework = state.frameworks[task.framework_id]
    del framework.live[task.id]
    framework.ended[task.id] = task
    state.ended_order[task.id] = None
    state.framework_changes.add(framework.id)
    if framework.state is FrameworkState.REMOVED:
        task.acknowledged = True
    trim_ended(state)


def trim_ended(state: MasterState) -> None:
    """Forget the oldest ended tasks beyond the retention; unseen ends are kept a while longer."""
    limit = state.settings.retain_terminal_tasks
    while len(state.ended_order) > limit:
        task_id = next(iter(state.ended_order))
        task = state.tasks[task_id]
        if not task.acknowledged and len(state.ended_order) <= limit * ENDED_SLACK:
            return
        forget_task(state, task)


def forget_task(state: MasterState, task: TaskRecord) -> None:
    """Remove every trace of an ended task."""
    del state.tasks[task.id]
    del state.ended_order[task.id]
    state.news.pop(task.id, None)
    state.dirty["task", task.id] = None
    state.dirty["spec", task.id] = None
    framework = state.frameworks.get(task.framework_id)
    if framework is not None:
        framework.ended.pop(task.id, None)
        ids = framework.keys.get(task.key, ())
        if not any(task_id in state.tasks for task_id in ids):
            framework.keys.pop(task.key, None)
