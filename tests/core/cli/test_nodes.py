from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
from click.testing import Result

from edgerm_core.cli import nodes
from edgerm_core.errors import RequestFailed


def agent(id: str, name: str, tasks: int = 0) -> dict[str, Any]:
    return {"id": id, "name": name, "tasks": tasks}


def test_drain_finds_the_agent_by_name(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["agents"] = [agent("a-1", "pi4"), agent("a-2", "pi5")]
    result = invoke("drain", "pi5")
    assert operator.requests[-1] == ("drain", "a-2", False)
    assert "pi5 drains" in result.stderr


def test_id_wins_over_the_name_of_another(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["agents"] = [agent("a-1", "a-2"), agent("a-2", "pi5")]
    invoke("drain", "a-2", "--undo")
    assert operator.requests[-1] == ("drain", "a-2", True)


def test_drain_waits_until_no_task_is_left(
    operator: Any, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "POLL_S", 0.0)
    counts: Iterator[int] = iter([3, 3, 1, 0])
    operator.rows["agents"] = lambda args: [agent("a-1", "pi4", next(counts))]
    result = invoke("drain", "pi4", "--wait")
    assert result.stderr.splitlines() == ["3 tasks left on pi4", "1 tasks left on pi4", "pi4 is drained"]


def test_forget(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["agents"] = [agent("a-1", "pi4")]
    invoke("forget", "a-1")
    assert operator.requests[-1] == ("forget", "a-1")


@pytest.mark.parametrize("rows", [[], [agent("a-1", "pi4"), agent("a-2", "pi4")]])
def test_unknown_or_ambiguous_agent_is_refused(
    rows: list[dict[str, Any]], operator: Any, invoke: Callable[..., Result]
) -> None:
    operator.rows["agents"] = rows
    result = invoke("forget", "pi4")
    assert isinstance(result.exception, RequestFailed)
    assert ("forget", "a-1") not in operator.requests


def test_wait_and_undo_exclude_each_other(invoke: Callable[..., Result]) -> None:
    assert isinstance(invoke("drain", "x", "--wait", "--undo").exception, click.UsageError)
