"""The table of executors: a module of the firmware runs `wasm`, through the interface of the docs."""

from __future__ import annotations

import json

import pytest

from edgerm_core.client import BlobSource, Recipe, TaskFailed, task
from edgerm_core.client.blocking import Framework
from edgerm_core.tasks import Implementation
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import NewBoard

WAIT_S = 30.0

FIRMWARE_MODULE = """
# Stands in for a user module of the firmware: it "runs" what the blob's last byte says.
VERSION = "stand-in 1"

def run(path, function, args, context):
    with open(path, "rb") as file:
        what = file.read()[-1:]
    if what == b"+":
        return args[0] + args[1]
    if what == b"r":
        return bytes(reversed(args[0]))
    if what == b"l":
        while not context.cancelled():
            pass
        return None
    raise RuntimeError("unreachable executed in " + function)
"""


def wasm(what: bytes, *args: int, **options: object) -> Recipe:
    blob = BlobSource.of(b"\0asm\x01\0\0\0" + what)
    return Recipe(Implementation("wasm", blob.id, args, {"function": "f", **options}), "module", (blob,))


def test_wasm_tasks_run_where_the_firmware_has_a_module_for_them(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board(start=False)
    (board.directory / "edgerm_wasm.py").write_text(FIRMWARE_MODULE)
    board.start()
    assert json.loads(framework.submit(task(wasm(b"+", 40, 2))).result(WAIT_S)) == 42
    assert framework.submit(task(wasm(b"r", abi="bytes", input=b"edge"))).result(WAIT_S) == b"egde"
    trapped = framework.submit(task(wasm(b"t")))
    with pytest.raises(TaskFailed, match="unreachable executed in f"):
        trapped.result(WAIT_S)
    assert trapped.update.reason == "trap"
    limited = framework.submit(task(wasm(b"l"), time_limit_s=0.3))
    assert limited.wait(WAIT_S).reason == "time-limit"
    assert [executor["name"] for executor in cluster.agent("board")["executors"]] in (
        ["python", "wasm"],
        ["wasm", "python"],
    )


def test_without_such_a_module_a_board_has_no_wasm(cluster: Cluster, new_board: NewBoard) -> None:
    new_board()
    assert [executor["name"] for executor in cluster.agent("board")["executors"]] == ["python"]
