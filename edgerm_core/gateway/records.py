"""What the gateway writes down, and reads back after it was restarted.

Layouts grow as messages do: by appending fields that have defaults.
"""

from __future__ import annotations

import cbor2
import msgspec

from edgerm_core.errors import EdgermError, StoreError
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import StatusUpdate


class CustodyTaken(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The gateway answers for this update from now on: its device may forget it."""

    agent_id: AgentId
    update: StatusUpdate


class CustodyReleased(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The master has the updates of this attempt up to and including `seq`."""

    agent_id: AgentId
    task_id: TaskId
    attempt: int
    seq: int


class CustodyDropped(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """This one update was left out, because a later one of the attempt says more."""

    agent_id: AgentId
    task_id: TaskId
    attempt: int
    seq: int


class MasterKnown(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Everything from here on is for the books of this master; what was for others is void."""

    master_id: str


Record = CustodyTaken | CustodyReleased | CustodyDropped | MasterKnown


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
