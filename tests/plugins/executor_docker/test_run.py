"""Handles survive being saved, and hold nothing secret; the first end that is noted counts."""

from __future__ import annotations

from pathlib import Path

import cbor2
import msgspec
import pytest
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.exits import ExitRecord
from edgerm_executor_docker.output import CatchUps, Output
from edgerm_executor_docker.run import Run, RunData, make_handle, read_handle

from edgerm_core.errors import TaskLost
from edgerm_core.interfaces import TaskHandle

DATA = RunData("c" * 64, "edgerm-x-t1.1.0", "/logs", 1000, 0, 5, "/sandbox/result", 1 << 20)


def test_handle_is_saved_and_read_back() -> None:
    handle = make_handle(DATA)
    raw = cbor2.loads(cbor2.dumps(msgspec.to_builtins(handle)))
    assert read_handle(msgspec.convert(raw, TaskHandle)) == DATA


@pytest.mark.parametrize(
    "handle",
    [
        TaskHandle("docker"),
        TaskHandle("docker", 1, {"x": 1}),
        TaskHandle("docker", 2, make_handle(DATA).data),
    ],
)
def test_strange_handle_is_lost(handle: TaskHandle) -> None:
    with pytest.raises(TaskLost, match="saved handle"):
        read_handle(handle)


def test_first_end_counts(tmp_path: Path) -> None:
    engine = Engine(lambda: "/nowhere", 1.0)
    run = Run(DATA, Output(engine, Background(), CatchUps(), str(tmp_path), 1000, (0, 0)))
    run.end(ExitRecord(3))
    run.end(ExitRecord(4))
    assert run.record == ExitRecord(3)
    assert run.ended.is_set()
