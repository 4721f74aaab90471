from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.simulate.report import duration, headline, percentile, report, size, tables

WORKLOAD = """
until_s = 2000
[[framework]]
name = "lab"
[[framework.submission]]
run = { duration_s = 100 }
task = { name = "fits", instances = 5, resources = "cpus:1", implementation = [{ executor = "process" }] }
[[framework.submission]]
task = { name = "large", instances = 2, resources = "cpus:9", implementation = [{ executor = "process" }] }
[[framework.submission]]
task = { name = "odd", resources = "cpus:1", implementation = [{ executor = "docker" }] }
"""


def test_waiting_is_counted_until_the_first_start(run: Any) -> None:
    """Two nodes of two processors: the fifth task waits for the end of another."""
    _, figures = run(workload=WORKLOAD)
    waited = figures["frameworks"][0]["waiting_s"]
    assert waited["p50"] < 8
    assert 100 < waited["max"] < 110


def test_who_never_ran_is_told_why(run: Any) -> None:
    _, figures = run(workload=WORKLOAD)
    why = {row["task"]: row for row in figures["never_ran"]}
    assert why.keys() == {"large", "odd"}
    assert (why["large"]["tasks"], why["large"]["state"]) == (2, "PENDING")
    assert "cpus: wants 9, has 2" in why["large"]["why"]
    assert "executor: wants docker, has process" in why["odd"]["why"]
    assert figures["tasks"]["never_ran"] == 3
    assert "5 of 8 tasks ended" in headline(figures)


def test_what_the_master_refuses_is_told(run: Any) -> None:
    experiment, _ = run()
    experiment.frameworks["lab"].submissions["lab-0-0"].failed = "it is too much"
    figures = report(experiment)
    assert figures["refused"] == [{"framework": "lab", "key": "lab-0-0", "why": "it is too much"}]
    text = tables(figures, every_agent=False)
    assert "1 submissions refused" in text
    assert "lab-0-0 was refused: it is too much" in text


def test_after_an_outage_the_master_hears_late(run: Any) -> None:
    outage = '[[agents]]\nname = "n"\n[[outage]]\nagents = ["n"]\nfrom_s = 50\nfor_s = 500\n'
    _, figures = run(
        outage,
        '[[framework]]\nname = "f"\n[[framework.submission]]\nrun = { duration_s = 100 }\n'
        'task = { name = "t", implementation = [{ executor = "process" }], '
        "disconnect = { replace = false } }\n",
    )
    assert figures["tasks"]["finished"] == 1
    assert 400 < figures["tasks"]["told_after_s"]["p50"] < 520


def test_figures_are_json_and_tables_have_everybody(run: Any) -> None:
    _, figures = run(workload=WORKLOAD)
    assert json.loads(json.dumps(figures)) == figures
    short, long = tables(figures, every_agent=False), tables(figures, every_agent=True)
    assert "node-1" not in short
    assert "node-1" in long
    for text in (short, long):
        assert "lab/large" in text
        assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0123, "12 ms"), (59.99, "1 min 00 s"), (3599.8, "1 h 00 min"), (21_720, "6 h 02 min")],
)
def test_durations_in_words(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert size(count) == text


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0])
)
def test_a_percentile_is_a_value_that_enough_are_not_larger_than(values: list[int], part: float) -> None:
    found = percentile(values, part)
    assert found in values
    assert sum(value <= found for value in values) >= part * len(values) - 1e-6
    assert sum(value < found for value in values) < part * len(values) + 1e-6
