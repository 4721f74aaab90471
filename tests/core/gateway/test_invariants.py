"""The invariants find what they are there to find."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.gateway import invariants
from edgerm_core.gateway.standin import Upstream
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import StatusUpdate
from edgerm_core.tasks import TaskState
from edgerm_core.testing.gateways import CONFIG, GatewayBench


@pytest.fixture
def bench() -> GatewayBench:
    bench = GatewayBench()
    bench.open_uplink()
    bench.device("d1")
    bench.take_in()
    return bench


def test_a_sound_gateway(bench: GatewayBench) -> None:
    invariants.check(bench.gateway, CONFIG)


def test_more_devices_than_its_limit(bench: GatewayBench) -> None:
    bench.device("d2")
    with pytest.raises(AssertionError, match="more devices"):
        invariants.check(bench.gateway, msgspec.structs.replace(CONFIG, max_devices=1))


def test_a_channel_that_nobody_answers_for(bench: GatewayBench) -> None:
    bench.gateway.standins[AgentId("d1")].upstream = Upstream.CLOSED
    with pytest.raises(AssertionError, match="device d1: CLOSED on channel 1"):
        invariants.check(bench.gateway, CONFIG)


def test_updates_that_pass_nowhere(bench: GatewayBench) -> None:
    bench.close_uplink()
    update = StatusUpdate(TaskId(1), 1, 1, TaskState.RUNNING)
    bench.gateway.standins[AgentId("d1")].passing[TaskId(1), 1] = [update]
    with pytest.raises(AssertionError, match="on their way nowhere"):
        invariants.check(bench.gateway, CONFIG)
