"""Sleeping guests."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from edgerm_executor_wasm.clock import MAX_SLEEP_S, MAX_SUBSCRIPTIONS, plan_sleep
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig

TARGET = 4096
SUCCESS, FAULT, INVALID = 0, 21, 28
Event = tuple[int, int, int]


def clock(user_data: int, clock_id: int, timeout_ns: int, *, absolute: bool = False) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", user_data, 0, clock_id, timeout_ns, 0, absolute)


def stream(user_data: int, kind: int) -> bytes:
    return struct.pack("<QB7xI28x", user_data, kind, 0)


def plan(*subscriptions: bytes) -> tuple[int, list[Event], float]:
    """Return error, (user data, error, type) of the events, sleep; now is 100 s after the guest's start."""
    memory = memoryview(bytearray(65_536))
    for index, subscription in enumerate(subscriptions):
        assert len(subscription) == 48
        memory[index * 48 : index * 48 + 48] = subscription
    error, count, sleep_s = plan_sleep(memory, 0, TARGET, len(subscriptions), 1100.0, 5000.0, 1000.0)
    events = [struct.unpack_from("<QHB", memory, TARGET + 32 * index) for index in range(count)]
    return error, events, sleep_s


@pytest.mark.parametrize(
    ("subscription", "sleep_s"),
    [
        (clock(7, 0, 2_000_000_000), 2.0),
        (clock(7, 1, 2_000_000_000), 2.0),
        (clock(7, 0, 5003_000_000_000, absolute=True), 3.0),
        (clock(7, 1, 104_000_000_000, absolute=True), 4.0),
        (clock(7, 1, 99_000_000_000, absolute=True), 0.0),
        (clock(7, 1, (1 << 64) - 1), MAX_SLEEP_S),
    ],
)
def test_sleep_lasts_as_long_as_the_clock_says(subscription: bytes, sleep_s: float) -> None:
    error, events, planned = plan(subscription)
    assert (error, events) == (SUCCESS, [(7, SUCCESS, 0)])
    assert planned == pytest.approx(sleep_s, abs=1e-6)


def test_streams_are_ready_at_once_and_clocks_then_are_not() -> None:
    assert plan(clock(1, 1, 10**9), stream(2, 1), stream(3, 2)) == (SUCCESS, [(2, 0, 1), (3, 0, 2)], 0.0)


def test_unknown_clock_is_an_event_with_an_error() -> None:
    assert plan(clock(1, 9, 10**9), clock(2, 1, 10**9)) == (SUCCESS, [(1, INVALID, 0)], 0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=20))
def test_first_of_many_clocks_ends_the_sleep(timeouts: list[int]) -> None:
    error, events, sleep_s = plan(*(clock(index, 1, timeout) for index, timeout in enumerate(timeouts)))
    assert error == SUCCESS
    assert sleep_s == pytest.approx(min(timeouts) / 1e9)
    assert {event[0] for event in events} == {i for i, t in enumerate(timeouts) if t == min(timeouts)}


@pytest.mark.parametrize("count", [0, MAX_SUBSCRIPTIONS + 1])
def test_no_or_too_many_subscriptions_are_refused(count: int) -> None:
    assert plan_sleep(memoryview(bytearray(1 << 20)), 0, 0, count, 0, 0, 0)[0] == INVALID


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=200),
)
def test_nonsense_never_leaves_the_memory(source: int, target: int, count: int, content: bytes) -> None:
    memory = bytearray(content)
    error, events, sleep_s = plan_sleep(memoryview(memory), source, target, count, 1.0, 1.0, 0.0)
    assert error in (SUCCESS, FAULT, INVALID)
    assert 0.0 <= sleep_s <= MAX_SLEEP_S
    assert events <= count
    if error:
        assert memory == content


@pytest.mark.anyio
@pytest.mark.parametrize("function", ["sleep_ms", "sleep_until_ms"])
async def test_guest_sleeps_as_long_as_it_asked_by_its_own_clock(rig: Rig, function: str) -> None:
    result = await rig.run(rig.launch("sleeps", function, 50))
    assert result.ok, result.message
    assert result.result is not None
    assert 49_000 <= int(result.result) < 10_000_000


@pytest.mark.anyio
@pytest.mark.parametrize("args", [(-48, 0, 1, 0), (0, -32, 1, 0), (0, 0, 1, -4), (0, 0, 1, 65_533)])
async def test_pointer_outside_the_memory_is_an_error_of_the_guest(rig: Rig, args: tuple[int, ...]) -> None:
    result = await rig.run(rig.launch("sleeps", "poll", *args))
    assert result.result == str(FAULT).encode()
