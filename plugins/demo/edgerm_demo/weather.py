"""The data: a year of hourly temperatures in Seattle, and what is to be found out about it.

Source: `seattle-temps.csv` of the PyPI package `vega_datasets` (NOAA, public domain; 2010; degrees
Fahrenheit with one decimal). All numbers are tenths of a degree Fahrenheit, integers, so that the
result can be compared exactly.
"""

from __future__ import annotations

import csv
import importlib.util
import struct
from pathlib import Path
from typing import Final

import msgspec

HEATING_LIMIT: Final = 644
"""18 °C in tenths of °F: below it, houses are heated (the base of heating degree days)."""

RESAMPLES: Final = 150_000
"""Of the bootstrap that finds how sure a week's mean is. Enough to be work for a small node."""

SAMPLES_PER_PART: Final = 7 * 24
MASK: Final = 0xFFFFFFFF


class Part(msgspec.Struct, frozen=True):
    """One week of the series.

    Attributes:
        index: which week.
        begins: time of the first sample, as the file writes it.
        samples: tenths of °F, hourly.
    """

    index: int
    begins: str
    samples: tuple[int, ...]

    def encode(self) -> bytes:
        """Return what the WASM function takes: seed, number of resamples, samples."""
        return struct.pack(f"<II{len(self.samples)}h", self.index + 1, RESAMPLES, *self.samples)


class Finding(msgspec.Struct, frozen=True):
    """What is found out about one week.

    Attributes:
        count, total, low, high: of the samples.
        heating: sum over the hours of what was missing to HEATING_LIMIT.
        total_p05, total_p95: the week's total, had other hours like these been measured, lies between
            these with 90 % (bootstrap).
    """

    count: int
    total: int
    low: int
    high: int
    heating: int
    total_p05: int
    total_p95: int

    @classmethod
    def decode(cls, data: bytes) -> Finding:
        """Read what the WASM function returned."""
        return cls(*struct.unpack("<7q", data))


def read_parts() -> list[Part]:
    """Return the year in weeks; the last one is shorter."""
    found = importlib.util.find_spec("vega_datasets")  # Importing it would load pandas.
    assert found is not None, "edgerm-demo depends on it"
    assert found.origin is not None
    path = Path(found.origin).parent / "_data" / "seattle-temps.csv"
    with open(path, newline="") as file:
        rows = [(row["date"], round(float(row["temp"]) * 10)) for row in csv.DictReader(file)]
    return [
        Part(index, rows[first][0], tuple(t for _, t in rows[first : first + SAMPLES_PER_PART]))
        for index, first in enumerate(range(0, len(rows), SAMPLES_PER_PART))
    ]


def celsius(tenths_f: float) -> float:
    """Return tenths of °F as °C."""
    return (tenths_f / 10 - 32) / 1.8


def independent_finding(part: Part) -> Finding:
    """Find out the same in another way, in Python: what `analyse.wat` does is checked against this."""
    samples = part.samples
    low_total, high_total = bootstrap(part)
    return Finding(
        len(samples),
        sum(samples),
        min(samples),
        max(samples),
        sum(HEATING_LIMIT - s for s in samples if s < HEATING_LIMIT),
        low_total,
        high_total,
    )


def bootstrap(part: Part) -> tuple[int, int]:
    """Return the 5 % and 95 % quantiles of the totals of RESAMPLES weeks drawn from this one.

    Every resample has its own xorshift generator, so all of them can be drawn side by side.
    """
    import numpy as np

    samples = np.array(part.samples, dtype=np.int32)
    numbers = np.arange(RESAMPLES, dtype=np.uint64)
    state = (np.uint64(part.index + 1) + numbers * np.uint64(2654435761)) & np.uint64(MASK) | np.uint64(1)
    state = state.astype(np.uint32)
    shifted = np.empty_like(state)
    picks = np.empty(RESAMPLES, dtype=np.uint64)
    totals = np.zeros(RESAMPLES, dtype=np.int32)
    for _ in samples:
        for shift, by in ((np.left_shift, 13), (np.right_shift, 17), (np.left_shift, 5)):
            shift(state, np.uint32(by), out=shifted)
            state ^= shifted
        np.multiply(state, np.uint64(len(samples)), out=picks, dtype=np.uint64)
        picks >>= np.uint64(32)
        totals += samples[picks.view(np.int64)]
    totals.sort()
    return int(totals[RESAMPLES // 20]), int(totals[RESAMPLES - 1 - RESAMPLES // 20])
