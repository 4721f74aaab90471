"""The clock of the state machines: seconds that never go backwards."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.clock import Clock, SteadyClock


class Machine:
    """A machine whose clock is set by hand."""

    def __init__(self, wall: float, monotonic: float = 5000.0) -> None:
        self.wall = wall
        self.monotonic = monotonic

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, not_before: float = 0.0) -> SteadyClock:
        return SteadyClock(not_before, wall=lambda: self.wall, monotonic=lambda: self.monotonic)


def test_it_starts_at_unix_time_and_goes_on_with_the_monotonic_clock() -> None:
    machine = Machine(1_700_000_000.0)
    clock = machine.clock()
    assert clock() == 1_700_000_000.0
    machine.pass_time(12.5)
    assert clock() == 1_700_000_012.5


@pytest.mark.parametrize("jump", [-3600.0, -1e9, +3600.0, +1e9])
def test_setting_the_machines_clock_moves_nothing(jump: float) -> None:
    machine = Machine(1_700_000_000.0)
    clock = machine.clock()
    machine.pass_time(1.0)
    machine.wall += jump
    assert clock() == 1_700_000_001.0
    machine.pass_time(1.0)
    assert clock() == 1_700_000_002.0


def test_a_machine_that_boots_in_1970_goes_on_from_its_latest_record() -> None:
    machine = Machine(30.0, monotonic=30.0)
    clock = machine.clock(not_before=1_700_000_000.0)
    assert clock() == 1_700_000_000.0
    machine.pass_time(2.0)
    assert clock() == 1_700_000_002.0


def test_a_record_of_the_past_changes_nothing() -> None:
    machine = Machine(1_700_000_000.0)
    assert machine.clock(not_before=1_600_000_000.0)() == 1_700_000_000.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), max_size=20), st.floats(0, 4e9))
@settings(max_examples=150, deadline=None)
def test_it_never_goes_backwards_and_counts_what_has_passed(
    steps: list[tuple[float, float]], not_before: float
) -> None:
    machine = Machine(1_700_000_000.0)
    clock = machine.clock(not_before)
    start = last = clock()
    assert start >= not_before - 1e-3
    passed = 0.0
    for seconds, jump in steps:
        machine.pass_time(seconds)
        machine.wall += jump
        passed += seconds
        assert clock() >= last
        last = clock()
        assert last - start == pytest.approx(passed, abs=1e-3)


def test_restarts_never_go_back_behind_what_was_recorded() -> None:
    """A board without a battery: each boot begins in 1970, and the records tell how far time was."""
    recorded = 0.0

    def boots() -> Iterator[tuple[Machine, Clock]]:
        for _ in range(5):
            machine = Machine(0.0, monotonic=0.0)
            yield machine, machine.clock(recorded)

    for machine, clock in boots():
        assert clock() >= recorded
        machine.pass_time(100.0)
        recorded = clock()
    assert recorded == pytest.approx(500.0)


def test_by_default_it_is_the_real_time() -> None:
    before = time.time()
    clock = SteadyClock()
    first = clock()
    # The machine's clock may be set by a little meanwhile.
    assert before - 1 <= first <= time.time() + 1
    assert clock() >= first
