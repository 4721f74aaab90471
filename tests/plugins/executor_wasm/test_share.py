"""CPU shares, against a processor that does what it is told."""

from __future__ import annotations

import pytest
from edgerm_executor_wasm.share import BURST_S, CpuShare
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=150, deadline=None)
@given(st.floats(0.001, 0.999), st.lists(st.floats(0.0001, 0.02), min_size=1, max_size=200))
def test_run_that_obeys_uses_no_more_than_its_share_and_its_burst(
    share: float, slices: list[float]
) -> None:
    now = used = 0.0
    bucket = CpuShare(share, now)
    for slice_s in slices:
        now += slice_s
        used += slice_s
        pause = bucket.charge(slice_s, now)
        now += pause
        assert used <= now * share + BURST_S + 1e-9


@settings(max_examples=150, deadline=None)
@given(st.floats(0.01, 0.99))
def test_busy_run_gets_its_share_in_the_long_run(share: float) -> None:
    now = used = 0.0
    bucket = CpuShare(share, now)
    while now < 60.0:
        now += 0.01
        used += 0.01
        now += bucket.charge(0.01, now)
    assert used == pytest.approx(60.0 * share, abs=0.2)


@pytest.mark.parametrize("share", [None, 1.0, 4.0])
def test_without_a_share_or_with_a_whole_processor_nobody_pauses(share: float | None) -> None:
    assert CpuShare(share, 0.0).charge(1000.0, 1.0) == 0.0


def test_short_run_never_pauses() -> None:
    assert CpuShare(0.001, 0.0).charge(BURST_S, 0.0) == 0.0


def test_idle_time_is_not_saved_up() -> None:
    bucket = CpuShare(0.5, 0.0)
    assert bucket.charge(BURST_S + 0.5, 1000.0) == pytest.approx(1.0)
