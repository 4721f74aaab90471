"""The gateway's records are read back as they were written, and nothing else is taken for one."""

from __future__ import annotations

import cbor2
import pytest

from edgerm_core.errors import StoreError
from edgerm_core.gateway.records import (
    CustodyDropped,
    CustodyReleased,
    CustodyTaken,
    MasterKnown,
    Record,
    decode_record,
    encode_record,
)
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import StatusUpdate
from edgerm_core.tasks import TaskState

A1, T1 = AgentId("a1"), TaskId(1)
FULL = StatusUpdate(T1, 2, 3, TaskState.FAILED, "exit-code", "exit code 3", 1, 3, 9, b"\0result", 12.5)


@pytest.mark.parametrize(
    "record",
    [
        CustodyTaken(A1, FULL),
        CustodyReleased(A1, T1, 2, 3),
        CustodyDropped(A1, T1, 2, 1),
        MasterKnown("m"),
    ],
)
def test_a_record_comes_back(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    "data", [b"", b"\xff", cbor2.dumps([99, "x"]), cbor2.dumps([1, "a1"]), cbor2.dumps(7)]
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="not a record"):
        decode_record(data)
