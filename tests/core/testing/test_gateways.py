"""The bench notices what must not be."""

from __future__ import annotations

import pytest

from edgerm_core.ids import TaskId
from edgerm_core.messages import Acknowledge, Registered, StatusUpdate
from edgerm_core.tasks import TaskState
from edgerm_core.testing.gateways import GatewayBench


def test_a_device_is_taken_in_and_the_journal_survives() -> None:
    bench = GatewayBench()
    bench.open_uplink()
    session = bench.device()
    assert bench.take_in() == [1]
    assert bench.inbox(session, Registered)
    bench.close_uplink()
    bench.say(session, StatusUpdate(TaskId(1), 1, 1, TaskState.RUNNING))
    bench.sync()
    assert bench.inbox(session, Acknowledge)
    before = list(bench.gateway.records())
    bench.restart(power_cut=True)
    assert list(bench.gateway.records()) == before


def test_a_record_that_was_not_written_is_found() -> None:
    bench = GatewayBench()
    bench.open_uplink()
    bench.journal.clear()
    with pytest.raises(AssertionError, match="the journal says the same"):
        bench.check()
