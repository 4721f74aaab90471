"""Records to bytes and back: what of the books outlives the master.

Kinds of record: `meta` (one), `agent`, `framework`, `spec` (written once per task) and `task`
(written on every change). Sessions, offers, filters and log streams do not last: they belong to
connections. Keys of tasks are big-endian numbers, so that the store appends rather than scatters.
Rows are msgspec arrays in msgpack: new fields go at the end, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from edgerm_core.agents import AgentInfo, AgentState
from edgerm_core.errors import StoreError
from edgerm_core.frameworks import FrameworkInfo, FrameworkState
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Write
from edgerm_core.limits import LEASE_HEARTBEATS, RETAIN_AGENT_S
from edgerm_core.master import agents, frameworks, tasks
from edgerm_core.master.records import AgentRecord, FrameworkRecord, Holding, TaskRecord, fair_amounts
from edgerm_core.master.state import MasterState
from edgerm_core.resources import Resources
from edgerm_core.tasks import StoryEntry, TaskSpec, TaskState

LAYOUT: Final = 1
"""Of the rows below. A store with a later one is refused rather than misread."""


class MetaRow(msgspec.Struct, array_like=True):
    """What there is one of."""

    layout: int
    master_id: str
    next_task_id: int
    next_offer_id: int
    now: float


class GhostRow(msgspec.Struct, array_like=True):
    task_id: TaskId
    attempt: int
    framework_id: FrameworkId
    resources: Resources


class AgentRow(msgspec.Struct, array_like=True):
    info: AgentInfo
    state: AgentState
    boot_id: str
    incarnation: str
    old_incarnations: tuple[str, ...]
    drain: bool
    heartbeat_s: float
    last_heard: float
    ghosts: tuple[GhostRow, ...]
    via: AgentId | None = None


class FrameworkRow(msgspec.Struct, array_like=True):
    info: FrameworkInfo
    removed: bool
    registered_at: float


class SpecRow(msgspec.Struct, array_like=True):
    framework_id: FrameworkId
    key: str
    index: int
    submitted_at: float
    spec: TaskSpec


class TaskRow(msgspec.Struct, array_like=True):
    state: TaskState
    reason: str
    message: str
    changed_at: float
    version: int
    attempt: int
    agent_id: AgentId | None
    implementation: int
    resources: Resources
    restarts: int
    status_seq: int
    kill_reason: str
    kill_grace_s: float | None
    failures: int
    losses: int
    not_before: float
    avoid: tuple[AgentId, ...]
    exit_code: int | None
    signal: int | None
    result: bytes | None
    acknowledged: bool
    confirmed: bool
    story: list[StoryEntry]


RowT = TypeVar("RowT")
_encode = msgspec.msgpack.Encoder().encode
_TASK_FIELDS: Final = TaskRow.__struct_fields__


def _task_key(task_id: TaskId) -> bytes:
    return task_id.to_bytes(8, "big")


# --- out --------------------------------------------------------------------------------------


def take_writes(state: MasterState) -> list[Write]:
    """Return the writes that bring the store in line with the books, and mark nothing dirty.

    The time goes with them: the next run's clock starts no earlier, so that nothing on record lies in its
    future, even if the machine's clock has been set back.
    """
    writes = [_write(state, kind, key) for kind, key in state.dirty if kind != "meta"]
    writes.append(meta_write(state))
    state.dirty.clear()
    return writes


def meta_write(state: MasterState) -> Write:
    """Return the record that there is one of; also written when the master ends in good order."""
    row = MetaRow(LAYOUT, state.master_id, state.next_task_id, state.next_offer_id, state.now)
    return Write("meta", b"", _encode(row))


def _write(state: MasterState, kind: str, key: Any) -> Write:
    if kind == "task":
        task = state.tasks.get(key)
        return Write(kind, _task_key(key), _encode(_task_row(task)) if task else None)
    if kind == "spec":
        task = state.tasks.get(key)
        if task is None:
            return Write(kind, _task_key(key), None)
        spec = SpecRow(task.framework_id, task.key, task.index, task.submitted_at, task.spec)
        return Write(kind, _task_key(key), _encode(spec))
    if kind == "agent":
        agent = state.agents.get(key)
        return Write(kind, key.encode(), _encode(_agent_row(agent)) if agent else None)
    if kind == "framework":
        framework = state.frameworks.get(key)
        if framework is None:
            return Write(kind, key.encode(), None)
        removed = framework.state is FrameworkState.REMOVED
        row = FrameworkRow(framework.info, removed, framework.registered_at)
        return Write(kind, key.encode(), _encode(row))
    raise AssertionError(f"unknown kind of record {kind!r}")


def _task_row(task: TaskRecord) -> TaskRow:
    return TaskRow(
        task.state,
        task.reason,
        task.message,
        task.changed_at,
        task.version,
        task.attempt,
        task.agent_id,
        task.implementation,
        task.resources,
        task.restarts,
        task.status_seq,
        task.kill_reason,
        task.kill_grace_s,
        task.failures,
        task.losses,
        task.not_before,
        tuple(sorted(task.avoid)),
        task.exit_code,
        task.signal,
        task.result,
        task.acknowledged,
        task.confirmed,
        task.story,
    )


def _agent_row(agent: AgentRecord) -> AgentRow:
    ghosts = tuple(
        GhostRow(task_id, attempt, ghost.framework_id, ghost.resources)
        for (task_id, attempt), ghost in agent.ghosts.items()
    )
    return AgentRow(
        agent.info,
        agent.state,
        agent.boot_id,
        agent.incarnation,
        agent.old_incarnations,
        agent.drain,
        agent.heartbeat_s,
        agent.last_heard,
        ghosts,
        agent.via,
    )


# --- in ---------------------------------------------------------------------------------------


def read_meta(records: Mapping[str, Mapping[bytes, bytes]]) -> MetaRow | None:
    """Return the record that there is one of; None in a new store.

    Raises:
        StoreError: if it is damaged, or was written by a later version.
    """
    raw = records.get("meta", {}).get(b"")
    if raw is None:
        if any(records.values()):
            raise StoreError("the store has records but no meta record: restore it from a backup")
        return None
    meta = _decode(raw, MetaRow, "meta")
    if meta.layout > LAYOUT:
        raise StoreError(
            f"the store was written by a later edgerm (layout {meta.layout}, this one reads {LAYOUT}): "
            f"upgrade this master, or restore a backup from before"
        )
    return meta


def restore(state: MasterState, records: Mapping[str, Mapping[bytes, bytes]]) -> None:
    """Fill empty books from the store's records and arm the deadlines they imply.

    Raises:
        StoreError: if a record is damaged.
    """
    meta = read_meta(records)
    if meta is None:
        state.dirty["meta", ""] = None
        return
    state.master_id = meta.master_id
    state.next_task_id = meta.next_task_id
    state.next_offer_id = meta.next_offer_id
    for raw in records.get("framework", {}).values():
        _restore_framework(state, _decode(raw, FrameworkRow, "framework"))
    for raw in records.get("agent", {}).values():
        _restore_agent(state, _decode(raw, AgentRow, "agent"))
    specs = records.get("spec", {})
    for key, raw in sorted(records.get("task", {}).items()):
        spec = specs.get(key)
        if spec is None:
            raise StoreError(f"task {int.from_bytes(key, 'big')} has no spec record: restore a backup")
        _restore_task(state, key, _decode(spec, SpecRow, "spec"), _decode(raw, TaskRow, "task"))
    for task_id, _ in sorted(
        ((t.id, t.changed_at) for t in state.tasks.values() if t.state.terminal), key=lambda x: x[1]
    ):
        state.ended_order[task_id] = None
    for agent in state.agents.values():
        state.recount(agent)


def _decode(raw: bytes, row_type: type[RowT], kind: str) -> RowT:
    try:
        return msgspec.msgpack.decode(raw, type=row_type)
    except (msgspec.MsgspecError, ValueError) as error:
        text = f"a {kind} record is damaged ({error}): restore the store from a backup"
        raise StoreError(text) from error


def _restore_framework(state: MasterState, row: FrameworkRow) -> None:
    framework = FrameworkRecord(row.info, row.registered_at)
    framework.state = FrameworkState.REMOVED if row.removed else FrameworkState.DISCONNECTED
    framework.disconnected_at = state.now
    state.frameworks[framework.id] = framework
    if not row.removed:
        frameworks.arm_timeouts(state, framework)


def _restore_agent(state: MasterState, row: AgentRow) -> None:
    agent = AgentRecord(row.info)
    agent.boot_id = row.boot_id
    agent.incarnation = row.incarnation
    agent.old_incarnations = row.old_incarnations
    agent.drain = row.drain
    agent.heartbeat_s = row.heartbeat_s
    agent.last_heard = row.last_heard
    agent.via = row.via
    agent.state = AgentState.RECOVERING
    for ghost in row.ghosts:
        charge = fair_amounts(ghost.resources, agent.devices)
        agent.ghosts[ghost.task_id, ghost.attempt] = Holding(
            ghost.task_id, ghost.attempt, ghost.framework_id, ghost.resources, charge
        )
    if row.state is AgentState.UNREACHABLE:
        agent.state = AgentState.UNREACHABLE
    state.add_agent(agent)
    if row.state is AgentState.UNREACHABLE:
        agent.unreachable_since = state.now
        key = (agent.id, state.now)
        state.at(state.now + RETAIN_AGENT_S, agents.on_retention_over, key)
    else:
        # Everybody was cut off at once: nobody is blamed before all had time to come back.
        grace_s = state.settings.recovery_grace_s + agent.heartbeat_s * LEASE_HEARTBEATS
        agent.lease_deadline = state.now + grace_s
        state.at(agent.lease_deadline, agents.on_lease_deadline, agent.id)


def _restore_task(state: MasterState, key: bytes, spec: SpecRow, row: TaskRow) -> None:
    task = TaskRecord(
        TaskId(int.from_bytes(key, "big")),
        spec.framework_id,
        spec.key,
        spec.index,
        spec.spec,
        spec.submitted_at,
    )
    for name in _TASK_FIELDS:
        setattr(task, name, getattr(row, name))
    task.avoid = frozenset(row.avoid)
    framework = state.frameworks.get(task.framework_id)
    if framework is None:
        raise StoreError(f"task {task.id} has no framework record: restore the store from a backup")
    state.tasks[task.id] = task
    framework.keys[task.key] = (*framework.keys.get(task.key, ()), task.id)
    if task.state.terminal:
        framework.ended[task.id] = task
        return
    framework.live[task.id] = task
    if task.state is TaskState.PENDING:
        tasks.admit(state, task)
        return
    agent = state.agents.get(task.agent_id) if task.agent_id else None
    if agent is None:
        raise StoreError(f"task {task.id} is on an agent without a record: restore a backup")
    charge = fair_amounts(task.resources, agent.devices)
    holding = Holding(task.id, task.attempt, task.framework_id, task.resources, charge)
    agent.holdings[task.id] = holding  # `restore` recounts what is free once all are booked.
    state.charge(agent, holding, +1)
    if not task.confirmed or task.kill_reason:
        agent.unconfirmed[task.id] = None
    if task.state is TaskState.UNREACHABLE:
        agents.arm_loss(state, task)
