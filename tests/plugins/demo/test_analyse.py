"""The WASM modules of the demonstration, run by wasmtime without edgerm."""

from __future__ import annotations

import pytest
import wasmtime
from edgerm_demo import weather
from edgerm_demo.study import HERE
from edgerm_demo.weather import Finding, Part, independent_finding, read_parts

from .masters import call_with_bytes, encoded


@pytest.fixture(scope="module")
def analyse() -> bytes:
    return bytes(wasmtime.wat2wasm((HERE / "analyse.wat").read_text()))


@pytest.mark.parametrize("week", [1, 53])
def test_module_finds_what_the_independent_calculation_finds(analyse: bytes, week: int) -> None:
    part = read_parts()[week - 1]
    finding = Finding.decode(call_with_bytes(analyse, "analyse", part.encode()))
    assert finding == independent_finding(part)


@pytest.mark.parametrize("resamples", [1, 19, 20, 40, 61])
def test_quantiles_of_few_resamples_are_exact(
    analyse: bytes, resamples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weather, "RESAMPLES", resamples)
    for index in range(40):
        part = Part(index, "", tuple(range(-40, 40, 1 + index % 7)))
        finding = Finding.decode(call_with_bytes(analyse, "analyse", part.encode()))
        assert finding == independent_finding(part)


@pytest.mark.parametrize(
    ("samples", "finding"),
    [
        ((600, 650), Finding(2, 1250, 600, 650, 44, 1200, 1300)),
        ((700,), Finding(1, 700, 700, 700, 0, 700, 700)),
        ((-100,), Finding(1, -100, -100, -100, 744, -100, -100)),
    ],
)
def test_figures_worked_out_by_hand(analyse: bytes, samples: tuple[int, ...], finding: Finding) -> None:
    result = call_with_bytes(analyse, "analyse", encoded(1, 1000, *samples))
    assert Finding.decode(result) == finding
