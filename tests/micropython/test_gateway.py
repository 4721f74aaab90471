"""Boards behind a gateway: awake, asleep, and without a master."""

from __future__ import annotations

import time

import pytest

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework
from edgerm_core.testing.processes import Cluster, free_url
from tests.micropython.conftest import NewBoard, python
from tests.micropython.test_sleep import sleeping

WAIT_S = 60.0
SUM = "def main(ctx, a, b):\n    yield 1\n    return a + b\n"


@pytest.fixture
def gateway(cluster: Cluster) -> str:
    """Where a gateway listens for boards."""
    url = free_url("coap")
    cluster.start_agent("gw", "--gateway", url, "--executor", "process")
    return url


def test_a_board_fetches_its_module_and_runs_it_behind_a_gateway(
    cluster: Cluster, new_board: NewBoard, framework: Framework, gateway: str
) -> None:
    new_board(master=gateway)
    assert cluster.agent("board")["via"] == "gw"
    assert framework.submit(task(python(SUM, 40, 2))).result(WAIT_S) == b"42"


def test_orders_wait_for_a_board_that_sleeps_deeply(
    cluster: Cluster, new_board: NewBoard, framework: Framework, gateway: str
) -> None:
    board = sleeping(new_board, sleep="deep", master=gateway)
    cluster.wait("it sleeps", lambda: not board.runs())
    board.wait()
    running = framework.submit(task(python(SUM, 40, 2)))
    time.sleep(0.3)

    def done() -> bool:
        if not board.runs():
            board.wait()
            board.start()
        return running.update.state.terminal

    cluster.wait("the task is done", done)
    assert running.result(WAIT_S) == b"42"
    assert running.update.attempt == 1


def test_what_a_board_ends_without_the_master_outlives_the_board(
    cluster: Cluster, new_board: NewBoard, framework: Framework, gateway: str
) -> None:
    board = new_board(master=gateway)
    source = "def main(ctx):\n    for _ in range(20):\n        yield 0.2\n    return 'kept'\n"
    running = framework.submit(task(python(source)))
    cluster.wait_for("board-task", "RUNNING")
    journal = cluster.directory / "gw" / "gateway" / "journal"
    cluster.kill("master")
    cluster.wait("the gateway has its end", lambda: b"kept" in journal.read_bytes())
    board.cut_power()
    cluster.start_master()
    assert running.result(WAIT_S) == b"kept"
    assert running.update.attempt == 1
