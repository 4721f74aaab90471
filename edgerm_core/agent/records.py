"""What the agent writes down about its runs, and reads back after it was restarted.

`RunLaunched` holds the order, which never changes; `RunChanged` holds everything that does, whole, so
that reading back means taking the last one. Layouts grow as messages do: by appending fields that have
defaults.
"""

from __future__ import annotations

import cbor2
import msgspec

from edgerm_core.agent.restart import RestartCount
from edgerm_core.agent.run import Ending, Phase, Run
from edgerm_core.agent.updates import Updates
from edgerm_core.errors import EdgermError, StoreError
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.messages import Launch, StatusUpdate


class RunLaunched(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The master ordered this attempt, and it starts without delay."""

    launch: Launch


class RunChanged(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Where an attempt stands now. Fields as in `Run` and `Updates`."""

    task_id: TaskId
    attempt: int
    phase: Phase
    restarts: int = 0
    last_seq: int = 0
    unacked: tuple[StatusUpdate, ...] = ()
    waiting: StatusUpdate | None = None
    handle: TaskHandle | None = None
    started_at: float = 0.0
    ending: Ending | None = None
    restart_at: float = 0.0
    count: RestartCount = RestartCount()


class RunForgotten(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The master has acknowledged the attempt's end; nothing need be known of it any more."""

    task_id: TaskId
    attempt: int


class MasterKnown(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The runs belong to the books of this master."""

    master_id: str


Record = RunLaunched | RunChanged | RunForgotten | MasterKnown


def encode_record(record: Record) -> bytes:
    """Return the record as CBOR."""
    return cbor2.dumps(msgspec.to_builtins(record, builtin_types=(bytes,)))


def decode_record(data: bytes) -> Record:
    """Read a record.

    Raises:
        StoreError: if it is none, or one of a layout that this version does not know.
    """
    try:
        return msgspec.convert(cbor2.loads(data), Record)  # type: ignore[no-any-return]
    except (cbor2.CBORError, msgspec.ValidationError, EdgermError, ValueError, TypeError) as error:
        raise StoreError(f"not a record of this version: {error}") from error


def record_of(run: Run) -> RunChanged:
    """Return where `run` stands as a record."""
    updates = run.updates
    return RunChanged(
        run.launch.task_id,
        run.launch.attempt,
        run.phase,
        run.restarts,
        updates.last_seq,
        tuple(updates.unacked),
        updates.waiting,
        run.handle,
        run.started_at,
        run.ending,
        run.restart_at,
        run.count,
    )


def restore(run: Run, record: RunChanged) -> None:
    """Put `run` where `record` says."""
    run.phase = record.phase
    run.restarts = record.restarts
    run.updates = Updates(record.last_seq, record.unacked, record.waiting)
    run.handle = record.handle
    run.started_at = record.started_at
    run.ending = record.ending
    run.restart_at = record.restart_at
    run.count = record.count
