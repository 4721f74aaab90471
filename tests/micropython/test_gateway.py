"""Boards behind a gateway: awake, asleep, and without a master."""

from __future__ import annotations

import time

import pytest

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework
from edgerm_core.tasks import DisconnectPolicy
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
    source = (
        "import os\ndef main(ctx):\n    while 'alone' not in os.listdir():\n        yield 0.1\n"
        "    return 'kept'\n"
    )
    running = framework.submit(task(python(source)))
    cluster.wait_for("board-task", "RUNNING")
    journal = cluster.directory / "gw" / "gateway" / "journal"
    cluster.kill("master")
    (board.directory / "alone").touch()
    cluster.wait("the gateway has its end", lambda: b"kept" in journal.read_bytes())
    board.cut_power()
    cluster.start_master()
    assert running.result(WAIT_S) == b"kept"
    assert running.update.attempt == 1


def test_a_gateway_that_is_cut_off_lets_boards_stop_what_must_not_go_on_without_the_master(
    cluster: Cluster, new_board: NewBoard, framework: Framework, gateway: str
) -> None:
    """The master gives its tasks to others; to the board the gateway was a master, and they went on."""
    board = new_board(master=gateway)
    framework.submit(task(python("def main(ctx):\n    yield 600\n"), name="goes-on"))
    alone = DisconnectPolicy(stop_after_s=8)
    framework.submit(task(python("def main(ctx):\n    yield 601\n"), name="limited", disconnect=alone))
    cluster.wait_for("goes-on", "RUNNING")
    cluster.wait_for("limited", "RUNNING")
    cluster.kill("master")
    journal = cluster.directory / "gw" / "gateway" / "journal"
    cluster.wait("the gateway has its end", lambda: b"stopped-while-disconnected" in journal.read_bytes())
    assert board.runs()
    cluster.start_master()

    def attempts() -> dict[str, tuple[int, str]]:
        rows = {row["name"]: row for row in cluster.tasks()}
        return {name: (rows[name]["attempt"], rows[name]["state"]) for name in ("goes-on", "limited")}

    # It counts as lost with its agent, and is placed anew.
    after = {"goes-on": (1, "RUNNING"), "limited": (2, "RUNNING")}
    cluster.wait("the board is back", lambda: attempts() == after)
    assert "stopped-while-disconnected" in [line["reason"] for line in cluster.rows("story", "limited")]
