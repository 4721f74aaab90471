from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgerm_core.simulate.meters import ShareMeter


def books(**frameworks: tuple[int, int, int]) -> Any:
    """Books with ten processors; by framework: processors held, tasks placed, tasks waiting."""
    return SimpleNamespace(
        totals={"cpus": 10_000},
        frameworks={
            name: SimpleNamespace(
                allocated={"cpus": held * 1000},
                live=range(placed + waiting),
                pending=range(waiting),
            )
            for name, (held, placed, waiting) in frameworks.items()
        },
    )


def test_averages_weigh_what_was_there_with_how_long_it_was() -> None:
    meter = ShareMeter(["a", "b"])
    meter.look(0.0, books(a=(4, 2, 0)))
    meter.look(30.0, books(a=(8, 4, 1), b=(2, 1, 0)))
    a, b = meter.take(40.0)
    assert (a.share, a.placed, a.waiting) == pytest.approx((0.5, 2.5, 0.25))
    assert (b.share, b.placed) == pytest.approx((0.05, 0.25))
    a, _ = meter.take(50.0)
    assert a.share == pytest.approx(0.8)


def test_shares_are_contended_while_two_frameworks_wait() -> None:
    meter = ShareMeter(["a", "b"])
    meter.look(0.0, books(a=(10, 5, 5), b=(0, 0, 0)))
    meter.look(10.0, books(a=(6, 3, 5), b=(4, 2, 1)))
    meter.look(15.0, books(a=(9, 3, 5), b=(1, 1, 0)))
    meter.take(100.0)
    assert meter.contended_s == [5.0, 5.0]
    assert meter.contended == pytest.approx([3.0, 2.0])
