"""The framework's model believes nothing that contradicts what it was told before."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.ids import TaskId
from edgerm_core.messages import Submitted, TaskUpdate
from edgerm_core.tasks import TaskState
from edgerm_core.testing.simulator.framework_node import FrameworkNode
from edgerm_core.testing.simulator.world import Failure

from .conftest import Begin, job


@pytest.fixture
def framework(begin: Begin) -> FrameworkNode:
    return begin(job(run_s=None)).frameworks["f1"]


def update(version: int, state: TaskState = TaskState.RUNNING, **fields: Any) -> TaskUpdate:
    return TaskUpdate(TaskId(7), version, state, "started", **fields)


def test_newer_news_replace_older_ones(framework: FrameworkNode) -> None:
    framework.on_message(update(1, TaskState.STARTING))
    framework.on_message(update(2))
    assert framework.told[7].state is TaskState.RUNNING


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (update(5), update(4), "older"),
        (update(5), update(5, TaskState.KILLING), "two contents"),
        (update(5, attempt=2), update(6, attempt=1), "attempt"),
        (update(5, TaskState.GONE), update(6), "final"),
    ],
)
def test_contradictions_are_found(
    framework: FrameworkNode, first: TaskUpdate, second: TaskUpdate, problem: str
) -> None:
    framework.checks.end_told = lambda *_: None  # type: ignore[method-assign]
    framework.on_message(first)
    with pytest.raises(Failure, match=problem):
        framework.on_message(second)


def test_a_key_that_names_other_tasks_is_found(framework: FrameworkNode) -> None:
    framework.submit_again("w0")
    [number] = framework._requests
    with pytest.raises(Failure, match=r"w0 made \(1,\), and now \(2,\)"):
        framework.on_message(Submitted(number, ((TaskId(2),),)))


def test_a_killed_task_ends(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    framework = cluster.frameworks["f1"]
    framework.kill("w0")
    cluster.world.run_until(20.0)
    assert framework.kills == {1: True}
    assert framework.told[1].state is TaskState.KILLED


def test_who_takes_offers_launches_on_them(begin: Begin) -> None:
    cluster = begin(offers=True, seconds=300.0)
    accepted = [
        s for s in cluster.frameworks["f1"].submissions.values() if s.offer_id is not None and s.ids
    ]
    assert accepted
