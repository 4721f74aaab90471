"""The process task that brings the weeks together, run as the gateway runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edgerm_demo.study import HERE
from hypothesis import given, settings
from hypothesis import strategies as st


def week(**changes: int) -> dict[str, int]:
    """One hour of 50 °F, which is 10 °C."""
    plain = {"count": 1, "total": 500, "low": 500, "high": 500, "heating": 144}
    return {**plain, "total_p05": 500, "total_p95": 500, **changes}


def reduce(directory: Path, weeks: list[dict[str, int]]) -> tuple[list[str], dict[str, Any]]:
    """Return (lines printed, result value)."""
    (directory / "findings.json").write_text(json.dumps(weeks))
    ended = subprocess.run(
        [sys.executable, "-I", str(HERE / "reduce.py")],
        cwd=directory,
        env={"EDGERM_RESULT_FILE": str(directory / "result"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return ended.stdout.decode().splitlines(), json.loads((directory / "result").read_text())


FIGURES = st.integers(-400, 1200)
WEEKS = st.lists(
    st.builds(
        week,
        count=st.integers(1, 168),
        total=FIGURES,
        low=FIGURES,
        high=FIGURES,
        heating=st.integers(0, 10**6),
        total_p05=FIGURES,
        total_p95=FIGURES,
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=15, deadline=None)
@given(weeks=WEEKS)
def test_year_is_what_the_weeks_add_up_to(
    weeks: list[dict[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines, year = reduce(tmp_path_factory.mktemp("sandbox"), weeks)
    assert year == {
        "hours": sum(w["count"] for w in weeks),
        "low": min(w["low"] for w in weeks),
        "high": max(w["high"] for w in weeks),
        **{name: sum(w[name] for w in weeks) for name in ("total", "heating", "total_p05", "total_p95")},
    }
    assert len(lines) == 1 + -(-len(weeks) // 13)


def test_table_has_a_line_for_each_quarter(tmp_path: Path) -> None:
    # In tenths of °F: 32 °F is 0 °C, 50 °F is 10 °C, 68 °F is 20 °C, 77 °F is 25 °C.
    cold = week(total=320, low=140, high=320, heating=4320, total_p05=302, total_p95=338)
    weeks = [week()] * 13 + [cold, week(total=680, high=770)]
    lines, _ = reduce(tmp_path, weeks)
    assert [" ".join(line.split()) for line in lines] == [
        "weeks mean °C 90 % between min max heating degree days",
        "1-13 10.00 10.00 … 10.00 10.0 10.0 4.3",
        "14-15 10.00 4.50 … 5.50 -10.0 25.0 10.3",
    ]


def test_without_findings_it_fails_and_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-I", str(HERE / "reduce.py")], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert ended.returncode != 0
    assert b"findings.json" in ended.stderr
