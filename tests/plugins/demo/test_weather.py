"""The data and the independent calculation."""

from __future__ import annotations

import csv
import importlib.util
import struct
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from edgerm_demo import weather
from edgerm_demo.weather import (
    HEATING_LIMIT,
    RESAMPLES,
    SAMPLES_PER_PART,
    Finding,
    Part,
    bootstrap,
    celsius,
    independent_finding,
    read_parts,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def test_parts_cover_the_year_exactly() -> None:
    found = importlib.util.find_spec("vega_datasets")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "_data" / "seattle-temps.csv"
    rows = list(csv.reader(path.read_text().splitlines()))[1:]
    parts = read_parts()
    samples = [sample for part in parts for sample in part.samples]
    assert [f"{sample // 10}.{sample % 10}" for sample in samples] == [temp for _, temp in rows]
    assert [part.index for part in parts] == list(range(53))
    assert {len(part.samples) for part in parts[:-1]} == {SAMPLES_PER_PART}
    assert 0 < len(parts[-1].samples) < SAMPLES_PER_PART
    # Clocks went forward on 14 March, so the file lacks an hour.
    first = datetime(2010, 1, 1)
    for part in parts:
        late = timedelta(hours=1 if part.index > 10 else 0)
        assert (
            datetime.strptime(part.begins, "%Y/%m/%d %H:%M") == first + timedelta(weeks=part.index) + late
        )


def test_part_is_encoded_as_seed_resamples_and_samples() -> None:
    part = Part(4, "", (-5, 0, 700))
    assert part.encode() == b"\x05\0\0\0" + RESAMPLES.to_bytes(4, "little") + b"\xfb\xff\0\0\xbc\x02"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=7, max_size=7))
def test_finding_is_decoded_as_it_was_written(figures: list[int]) -> None:
    finding = Finding.decode(struct.pack("<7q", *figures))
    assert [getattr(finding, name) for name in Finding.__struct_fields__] == figures


def test_finding_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(struct.error):
        Finding.decode(bytes(55))


def test_figures_of_two_hours_are_those_worked_out_by_hand() -> None:
    # A total of two draws is 1200 in a quarter, 1250 in half and 1300 in a quarter of all cases.
    finding = independent_finding(Part(0, "", (600, 650)))
    assert finding == Finding(2, 1250, 600, 650, 44, 1200, 1300)


def test_week_of_one_temperature_is_certain() -> None:
    finding = independent_finding(Part(7, "", (HEATING_LIMIT,) * 24))
    total = 24 * HEATING_LIMIT
    assert finding == Finding(24, total, HEATING_LIMIT, HEATING_LIMIT, 0, total, total)


@pytest.mark.parametrize("index", [0, 52])
def test_side_by_side_resamples_are_those_of_one_after_the_other(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weather, "RESAMPLES", 300)
    samples = (400, 412, 380, 555, -20, 639)
    totals = []
    for number in range(300):
        state = (index + 1 + number * 2654435761) % 2**32 | 1
        total = 0
        for _ in samples:
            state ^= state << 13 & 0xFFFFFFFF
            state ^= state >> 17
            state ^= state << 5 & 0xFFFFFFFF
            total += samples[state * len(samples) >> 32]
        totals.append(total)
    totals.sort()
    assert bootstrap(Part(index, "", samples)) == (totals[15], totals[284])


def test_mean_lies_between_the_quantiles_of_a_real_week() -> None:
    finding = independent_finding(read_parts()[27])
    assert finding.low * finding.count < finding.total_p05 < finding.total
    assert finding.total < finding.total_p95 < finding.high * finding.count


@pytest.mark.parametrize(("tenths_f", "degrees_c"), [(320, 0.0), (2120, 100.0), (-400, -40.0)])
def test_fixed_points_of_the_scales(tenths_f: float, degrees_c: float) -> None:
    assert celsius(tenths_f) == pytest.approx(degrees_c)


def test_heating_limit_is_what_its_docstring_says() -> None:
    assert celsius(HEATING_LIMIT) == pytest.approx(18.0, abs=0.03)
