from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from edgerm_core.cli.tasks import find_task, with_intervals
from edgerm_core.errors import RequestFailed

pytestmark = pytest.mark.anyio


def named(number: int, name: str, ended: bool) -> dict[str, Any]:
    return {"id": f"t{number}", "number": number, "name": name, "ended": ended}


def answer_from(*tasks: dict[str, Any]) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda args: [
        t for t in tasks if t["name"] == args["name"] and (args["ended"] or not t["ended"])
    ]


async def test_ids_need_no_question(operator: Any) -> None:
    assert await find_task(operator, "t17") == 17
    assert await find_task(operator, "17") == 17
    assert operator.requests == []


async def test_live_task_of_a_name_wins_over_ended_ones(operator: Any) -> None:
    operator.rows["tasks"] = answer_from(
        named(1, "web", True), named(2, "web", True), named(3, "web", False)
    )
    assert await find_task(operator, "web") == 3


async def test_ended_task_is_found_if_its_name_is_unique(operator: Any) -> None:
    operator.rows["tasks"] = answer_from(named(1, "web", True))
    assert await find_task(operator, "web") == 1


async def test_name_that_is_not_unique_is_refused_with_the_ids(operator: Any) -> None:
    operator.rows["tasks"] = answer_from(*(named(n, "web", False) for n in range(1, 13)))
    with pytest.raises(RequestFailed, match=r"12 tasks are named 'web': use an id \(t1, .*t10, …\)"):
        await find_task(operator, "web")


async def test_unknown_name_is_refused(operator: Any) -> None:
    with pytest.raises(RequestFailed, match="no task 'web'"):
        await find_task(operator, "web")


def test_intervals_count_from_the_line_before() -> None:
    rows = with_intervals([{"at": 100.0}, {"at": 100.25}, {"at": 400.0}])
    assert [row["after"] for row in rows] == ["+0.000s", "+0.250s", "+4m"]


def test_kill_sends_all_ids_in_one_request(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["tasks"] = answer_from(named(9, "web", False))
    result = invoke("kill", "t5", "web", "--grace", "2")
    assert operator.requests[-1] == ("kill", [5, 9], 2.0)
    assert result.stdout == ""
    assert "asked to end t5, web" in result.stderr


def test_story_shows_every_line_with_its_interval(operator: Any, invoke: Callable[..., Result]) -> None:
    entry = {"state": "PENDING", "reason": "submitted", "source": "framework", "message": "", "attempt": 0}
    operator.rows["story"] = [
        {"at": 1_700_000_000.0, "agent": "", **entry},
        {"at": 1_700_000_000.5, "agent": "pi4", **entry, "state": "RUNNING", "attempt": 1},
    ]
    lines = invoke("story", "t5").stdout.splitlines()
    assert len(lines) == 3
    assert "+0.500s  RUNNING" in lines[2]
    assert operator.requests[-1] == ("story", {"task": "t5"})
    assert len(json.loads(invoke("story", "t5", "--json").stdout)) == 2


EXPLAINED = {
    "task": "t5",
    "state": "PENDING",
    "summary": "no agent has enough free",
    "policy": "",
    "agents": [{"agent": "pi4", "verdict": "full", "obstacles": ["cpus: wants 2, has 1", "busy"]}],
    "next": "placed when enough is given back",
}


def test_explain_is_a_sentence_then_agents(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["explain"] = [EXPLAINED]
    assert invoke("explain", "t5").stdout.splitlines() == [
        "t5 is PENDING: no agent has enough free",
        "next: placed when enough is given back",
        "AGENT  VERDICT  OBSTACLES",
        "pi4    full     cpus: wants 2, has 1; busy",
    ]
    assert json.loads(invoke("explain", "t5", "--json").stdout) == EXPLAINED
