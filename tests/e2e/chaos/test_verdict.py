"""The checks find what they look for: a sound history passes, and each way to spoil it is named."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.tasks import TaskState
from tests.e2e.chaos import verdict
from tests.e2e.chaos.evidence import Line
from tests.e2e.chaos.workload import Expected, Job

AGENT: dict[str, Any] = {
    "name": "a1",
    "state": "READY",
    "connected": True,
    "drain": False,
    "free": {"cpus": 1.0},
    "totals": {"cpus": 1.0},
    "tasks": 0,
    "ghosts": 0,
    "offers": 0,
}


def entry(state: str, reason: str, attempt: int = 1, agent: str = "a1") -> dict[str, Any]:
    return {"state": state, "reason": reason, "attempt": attempt, "agent": agent}


STORY = [
    entry("PENDING", "submitted", 0, ""),
    entry("STAGING", "placed"),
    entry("UNREACHABLE", "agent-unreachable"),
    entry("PENDING", "agent-unreachable"),
    entry("STAGING", "placed", 2, "a2"),
    entry("RUNNING", "started", 2, "a2"),
    entry("FINISHED", "exited", 2, "a2"),
]

TASK: dict[str, Any] = {
    "id": "t1",
    "number": 1,
    "name": "f-0",
    "index": 0,
    "state": "FINISHED",
    "reason": "exited",
    "message": "",
    "attempt": 2,
    "restarts": 0,
    "exit_code": 0,
    "signal": None,
    "result": "f-0.0",
    "story": STORY,
}

JOB = Job("f-0", "short", 1, None, Expected(TaskState.FINISHED, exit_code=0), lambda _: None)  # type: ignore[arg-type, return-value]

TOLD = {
    "what": "told",
    "key": "f-0",
    "version": 9,
    **{name: TASK[name] for name in verdict.TOLD[2:]},
    "id": 1,
}
ACCEPTED = {"what": "accepted", "key": "f-0", "ids": [1]}
DIARY: list[dict[str, Any]] = [{"what": "intend", "key": "f-0", "number": 0}, ACCEPTED, TOLD]

LINES = [
    Line("start", 1, 0, "a1", "b1", 10.0),
    Line("start", 2, 0, "a2", "b2", 11.0),
    Line("beside-a1", 2, 0, "a2", "b2", 11.0),
    Line("end-0", 2, 0, "a2", "b2", 12.0),
]


def test_a_sound_history_passes() -> None:
    assert list(verdict.check_agents([AGENT], ["a1"])) == []
    assert list(verdict.check_story(TASK)) == []
    assert list(verdict.check_diary(DIARY)) == []
    assert list(verdict.check_tasks([TASK], {"f-0": JOB}, DIARY)) == []
    assert list(verdict.check_runs(TASK, JOB, LINES)) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "a2"}, "the agents are"),
        ({"connected": False}, "a1 is ('READY', False, False)"),
        ({"drain": True}, "a1 is ('READY', True, True)"),
        ({"free": {"cpus": 0.5}}, "free is"),
        ({"ghosts": 1}, "a1 has 1 ghosts"),
    ],
)
def test_an_agent_that_is_not_free_again(change: dict[str, Any], sentence: str) -> None:
    assert sentence in "; ".join(verdict.check_agents([AGENT | change], ["a1"]))


@pytest.mark.parametrize(
    ("story", "sentence"),
    [
        (STORY[1:], "its story begins with"),
        (STORY[:-1], "its story ends with"),
        (
            [*STORY[:2], entry("PENDING", "x", 2), *STORY[4:4], entry("RUNNING", "x")],
            "attempt 2 was followed",
        ),
        ([*STORY, entry("FINISHED", "exited", 2)], "something followed its end"),
        (
            [STORY[0], entry("KILLING", "x"), entry("RUNNING", "x"), STORY[-1]],
            "KILLING was followed by RUNNING",
        ),
    ],
)
def test_a_story_that_cannot_be(story: list[dict[str, Any]], sentence: str) -> None:
    assert sentence in "; ".join(verdict.check_story(TASK | {"story": story}))


@pytest.mark.parametrize(
    ("diary", "sentence"),
    [
        ([*DIARY, ACCEPTED | {"ids": [2]}], "and when it was submitted again [2]"),
        ([*DIARY, TOLD | {"state": "FAILED"}], "had ended as"),
    ],
)
def test_a_framework_that_was_told_two_things(diary: list[dict[str, Any]], sentence: str) -> None:
    assert sentence in "; ".join(verdict.check_diary(diary))


@pytest.mark.parametrize(
    ("tasks", "diary", "sentence"),
    [
        ([], DIARY, "is the tasks [1] for its framework, [] for the master"),
        ([TASK, TASK | {"number": 2}], DIARY, "[1, 2] for the master"),
        ([TASK], DIARY[:1], "has tasks that the framework was not told of"),
        ([], DIARY[:1], "was submitted and never accepted"),
        ([TASK], DIARY[:2], "was never told how it ended"),
        ([TASK], [*DIARY[:2], TOLD | {"exit_code": 3}], "the framework was told"),
        ([TASK | {"result": "f-1.0"}], DIARY, "has the result 'f-1.0', expected 'f-0.0'"),
        ([TASK | {"exit_code": 1}], DIARY, "ended with 1, expected 0"),
        ([TASK | {"state": "RUNNING"}], DIARY, "has not ended"),
        ([TASK | {"state": "KILLED"}], DIARY, "nobody wanted it killed"),
        ([TASK | {"state": "GONE"}], DIARY, "expected FINISHED"),
    ],
)
def test_tasks_that_are_not_what_was_submitted(
    tasks: list[dict[str, Any]], diary: list[dict[str, Any]], sentence: str
) -> None:
    assert sentence in "; ".join(verdict.check_tasks(tasks, {"f-0": JOB}, diary))


@pytest.mark.parametrize(
    ("change", "lines", "sentence"),
    [
        ({}, [*LINES, Line("twice", 2, 0, "a2", "b2", 11.0)], "while another run lived there"),
        ({}, [*LINES, Line("start", 3, 0, "a1", "b1", 12.0)], "attempt 3 began, the master knows 2"),
        ({}, [*LINES, Line("start", 2, 0, "a2", "b2", 12.0)], "run (2, 0) began after (2, 0)"),
        ({}, [*LINES, Line("start", 1, 0, "a3", "b3", 9.0)], "attempt 1 ran on ['a1', 'a3']"),
        ({}, LINES[:-1], "is FINISHED, its run wrote []"),
        ({"state": "FAILED", "reason": "exit-code", "exit_code": 1}, LINES, "FAILED with 1, its run wrote"),
        ({"story": [STORY[0], *STORY[4:]]}, LINES, "(2, 0) on a2 while (1, 0) lived on a1"),
    ],
)
def test_runs_that_were_not_as_the_master_says(
    change: dict[str, Any], lines: list[Line], sentence: str
) -> None:
    assert sentence in "; ".join(verdict.check_runs(TASK | change, JOB, lines))
