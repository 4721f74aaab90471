"""Channels: one for each device that is here, a few for custody, bounded in number and size."""

from __future__ import annotations

import pytest

from edgerm_core.codec import encode
from edgerm_core.ids import TaskId
from edgerm_core.limits import CUSTODY_FRAME_BYTES
from edgerm_core.messages import (
    Acknowledge,
    Heartbeat,
    Refused,
    Registered,
    RelayClose,
    Relayed,
    RelayOpen,
    StatusUpdate,
)
from edgerm_core.tasks import TaskState
from edgerm_core.testing.gateways import GatewayBench


@pytest.fixture
def bench() -> GatewayBench:
    """A gateway that has met its master and lost it."""
    bench = GatewayBench()
    bench.open_uplink()
    bench.close_uplink()
    return bench


def end(task: int, size: int = 0) -> StatusUpdate:
    return StatusUpdate(TaskId(task), 1, 1, TaskState.FINISHED, result=b"x" * size)


def test_custody_of_those_who_are_away_goes_first(bench: GatewayBench) -> None:
    gone = bench.device("gone")
    bench.say(gone, end(1))
    bench.lose(gone)
    bench.device("here")
    bench.open_uplink()
    assert [(o.channel, o.custody_of) for o in bench.take_up(RelayOpen)] == [(1, "gone"), (2, "")]


def test_custody_is_handed_over_in_bounded_frames(bench: GatewayBench) -> None:
    session = bench.device()
    for task in range(1, 8):
        bench.say(session, end(task, 20_000))
    bench.lose(session)
    bench.open_uplink()
    frames = [m for m in bench.up if isinstance(m, Relayed)]
    assert [len(frame.data) <= CUSTODY_FRAME_BYTES for frame in frames] == [True] * 3
    assert len(bench.relayed(1)) == 7


def test_only_so_many_devices_hand_over_their_custody_at_once(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.gateway.uplink.REGISTRATION_WINDOW", 1)
    for name in ("d1", "d2"):
        session = bench.device(name)
        bench.say(session, end(1))
        bench.lose(session)
    bench.open_uplink()
    assert [o.custody_of for o in bench.take_up(RelayOpen)] == ["d1"]
    bench.master(1, Acknowledge(TaskId(1), 1, 1))
    assert bench.closes() == [RelayClose(1)]
    assert [o.custody_of for o in bench.take_up(RelayOpen)] == ["d2"]


def test_a_device_that_the_master_refuses_makes_room_for_the_next(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.gateway.uplink.REGISTRATION_WINDOW", 1)
    bench.device("d1")
    bench.device("d2")
    bench.open_uplink()
    assert [o.channel for o in bench.take_up(RelayOpen)] == [1]
    bench.master(1, Refused("limit", "the master is full"))
    assert [o.channel for o in bench.take_up(RelayOpen)] == [2]


def test_many_devices_are_named_in_heartbeats_of_bounded_size(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.gateway.uplink.MAX_HEARD_CHANNELS", 2)
    sessions = [bench.device(f"d{number}") for number in range(3)]
    bench.open_uplink()
    bench.take_in()
    for session in sessions:
        bench.say(session, Heartbeat())
    bench.pass_time(10)
    assert bench.take_up(Heartbeat) == [Heartbeat((1, 2)), Heartbeat((3,))]


def test_a_hundred_devices_cost_less_than_their_heartbeats(bench: GatewayBench) -> None:
    assert len(encode(Heartbeat(tuple(range(1, 101))))) < 100 * len(encode(Heartbeat()))


def test_channels_are_never_used_again(bench: GatewayBench) -> None:
    bench.device("d1")
    for channel in (1, 2, 3):
        bench.open_uplink()
        assert [o.channel for o in bench.take_up(RelayOpen)] == [channel]
        bench.master(channel, Registered(1, 10.0, 35.0, "m"))
        bench.close_uplink()
        bench.up.clear()


def test_a_registration_that_is_repeated_says_nothing_twice(bench: GatewayBench) -> None:
    session = bench.device("d1")
    bench.open_uplink()
    bench.say(session, end(1))
    bench.take_in()
    assert bench.relayed(1) == [end(1)]
    bench.master(1, Registered(1, 10.0, 35.0, "m"))
    assert bench.relayed(1) == []
