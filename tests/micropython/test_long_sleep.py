"""A board that is off for a minute between two polls, and still receives, runs and reports its tasks.

The minutes are real: its power goes off when its program asks for a deep sleep, and comes back when the
time it asked for is over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework, Task
from edgerm_core.testing.processes import Cluster, cluster_in
from tests.micropython.conftest import Board, NewBoard, python
from tests.micropython.test_sleep import ASLEEP, naps, sleeping

pytestmark = pytest.mark.timeout(600)

SLEEP_S = 60.0
TASKS = 3
WAIT_S = 5 * SLEEP_S

CONFIG = f"""\
[master]
heartbeat_s = 1.0
heartbeat_constrained_s = {SLEEP_S}
lease_grace_s = 5.0
"""

NOTES = """
def main(ctx):
    with open("starts", "a") as file:
        file.write("%d " % ctx.task_id)
    yield 1
    return ctx.task_id
"""
"""Every start appends to a file."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path, CONFIG, schemes=("ws", "coap")) as cluster:
        cluster.start_master()
        yield cluster


def wait_until_it_sleeps(cluster: Cluster, board: Board) -> float:
    """Wait until it sleeps; return for how many seconds it wants to."""
    cluster.wait("the board sleeps", lambda: not board.runs(), WAIT_S)
    assert board.wait() == ASLEEP, board.log()
    found = re.fullmatch(r"deep (\d+)", naps(board)[-1])
    assert found is not None, naps(board)
    return int(found[1]) / 1000


def test_a_board_that_is_off_for_a_minute_gets_runs_and_reports_its_tasks(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = sleeping(new_board, sleep="deep", max_tasks=TASKS, datagram_s=SLEEP_S)
    submitted: list[Task] = []
    for _ in range(2):
        sleep_s = wait_until_it_sleeps(cluster, board)
        print(f"it sleeps for {sleep_s:.1f} s")
        assert sleep_s > SLEEP_S / 2
        submitted += framework.submit_many([task(python(NOTES)) for _ in range(TASKS)])
        # Nobody can wake it: what has not started by then is not lost, and nothing else is tried.
        time.sleep(sleep_s)
        assert not any(running.update.state.terminal for running in submitted[-TASKS:])
        board.start()
        for running in submitted[-TASKS:]:
            assert running.result(WAIT_S) == str(running.id).encode()
            assert (running.update.attempt, running.update.restarts) == (1, 0)
    starts = [int(word) for word in (board.directory / "starts").read_text().split()]
    assert sorted(starts) == sorted(running.id for running in submitted)
    assert cluster.agent("board")["connected"] is True
    journal = (board.data / "journal").read_bytes()
    assert journal.count(b"\x82\x18\x67") == 1, "the session goes on through all sleeps"
