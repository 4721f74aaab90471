"""The steps of the demonstration that can go wrong by themselves; the whole of it runs end to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from edgerm_demo import show
from edgerm_demo.cluster import AGENTS, Cluster
from edgerm_demo.display import Display
from edgerm_demo.study import Study
from edgerm_demo.weather import Finding, Part

from edgerm_core.client import Framework, Operator, connect_operator
from edgerm_core.config import DEFAULT_URL
from edgerm_core.errors import EdgermError
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import FrameworkId

from .masters import ComputingMaster

PARTS = [Part(0, "", (600, 650)), Part(1, "", (700,))]
FINDINGS = [Finding(2, 1250, 600, 650, 44, 1200, 1300), Finding(1, 700, 700, 700, 0, 700, 700)]
YEAR = {
    "hours": 3,
    "total": 1950,
    "low": 600,
    "high": 700,
    "heating": 44,
    "total_p05": 1900,
    "total_p95": 2000,
}


@pytest.fixture
def study() -> Study:
    """A study whose map is done."""
    made = Study(Framework(FrameworkInfo(FrameworkId("weather"))), PARTS)
    made.findings = {1: FINDINGS[1], 0: FINDINGS[0]}
    return made


def test_right_figures_are_counted(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    show._check(Display(plain=True), study, FINDINGS, YEAR)
    shown = capsys.readouterr().out
    assert "the year's mean is 18.33 °C" in shown
    assert "all 21 figures agree" in shown


@pytest.mark.parametrize("figure", Finding.__struct_fields__)
def test_wrong_figure_of_a_week_is_found(study: Study, figure: str) -> None:
    study.findings[1] = msgspec.structs.replace(FINDINGS[1], **{figure: 7})
    with pytest.raises(EdgermError, match=r"^week 2: "):
        show._check(Display(plain=True), study, FINDINGS, YEAR)


@pytest.mark.parametrize("figure", YEAR)
def test_wrong_figure_of_the_year_is_found(study: Study, figure: str) -> None:
    with pytest.raises(EdgermError, match=r"^the year's figures "):
        show._check(Display(plain=True), study, FINDINGS, {**YEAR, figure: YEAR[figure] + 1})


def test_missing_week_is_found(study: Study) -> None:
    with pytest.raises(ValueError, match="shorter"):
        show._check(Display(plain=True), study, FINDINGS[:1], YEAR)


@pytest.fixture
def master() -> ComputingMaster:
    return ComputingMaster()


@pytest.fixture
async def operator(master: ComputingMaster) -> AsyncIterator[Operator]:
    with anyio.fail_after(30):
        async with connect_operator(master.url, plugins=master.plugins, insecure=True) as made:
            yield made


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("states", "ready"),
    [
        (["READY"] * 3, True),
        (["READY"] * 2, False),
        (["READY", "UNREACHABLE", "READY"], False),
        ([], False),
    ],
)
async def test_cluster_is_ready_once_all_agents_are(
    master: ComputingMaster, operator: Operator, states: list[str], ready: bool
) -> None:
    names = list(AGENTS)[: len(states)]
    rows = [{"name": name, "state": state} for name, state in zip(names, states, strict=True)]
    master.answers["agents"] = rows
    assert await show._all_ready(operator) is ready


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("at_work", "victim"),
    [
        (["gateway", "node-a", "node-b"], "node-b"),
        (["gateway", "node-a"], "node-a"),
        (["gateway"], "node-b"),
        ([], "node-b"),
    ],
)
async def test_victim_is_a_small_node_at_work_and_never_the_gateway(
    master: ComputingMaster, operator: Operator, at_work: list[str], victim: str
) -> None:
    master.answers["tasks"] = [{"agent": name} for name in at_work]
    assert await show._victim(operator) == victim
    assert master.asked == [("tasks", {"framework": "weather", "states": ["RUNNING"]})]


@pytest.mark.anyio
async def test_story_of_a_moved_task_is_told(
    master: ComputingMaster, operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    master.answers["tasks"] = [{"id": 1, "attempt": 1}, {"id": 7, "attempt": 2}, {"id": 8, "attempt": 3}]
    lost: dict[str, Any] = {
        "state": "UNREACHABLE",
        "reason": "lease",
        "agent": "node-b",
        "message": "silent",
    }
    again: dict[str, Any] = {"state": "STAGING", "reason": "placed", "agent": "", "message": ""}
    master.answers["story"] = [{"at": 50.0, "attempt": 1, **lost}, {"at": 51.5, "attempt": 2, **again}]
    await show._recovered(Cluster(tmp_path), Display(plain=True), operator)
    first, *story = capsys.readouterr().out.splitlines()
    assert first.endswith("2 tasks lost their agent and were placed again; the story of one:")
    assert [line.strip() for line in story] == [
        "+ 0.00 s  attempt 1  UNREACHABLE lease on node-b: silent",
        "+ 1.50 s  attempt 2  STAGING     placed",
    ]
    assert master.asked[-1] == ("story", {"task": 7})


@pytest.mark.parametrize("url", [DEFAULT_URL, "ws://127.0.0.1:4711"])
def test_kept_cluster_is_told_how_to_reach(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(tmp_path)
    cluster.url = url
    show._next_steps(cluster, Display(plain=True), keep=True)
    shown = capsys.readouterr().out
    assert (f"export EDGERM_MASTER={url}" in shown) == (url != DEFAULT_URL)
    show._next_steps(cluster, Display(plain=True), keep=False)
    assert "edgerm demo --keep" in capsys.readouterr().out
