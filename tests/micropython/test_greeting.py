"""What a board says about itself, as the master acts on it."""

from __future__ import annotations

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import NewBoard, python

WAIT_S = 30.0

SLOW = """
import asyncio
async def main(ctx):
    await asyncio.sleep(0.2)
    return ctx.index
"""


def test_a_board_gets_no_more_tasks_at_once_than_it_says(
    cluster: Cluster, framework: Framework, new_board: NewBoard
) -> None:
    """Seven that ask for nothing: five were dropped by the board, and each drop counted as a loss."""
    new_board(max_tasks=2)
    assert cluster.agent("board")["max_tasks"] == 2
    tasks = framework.submit_many([task(python(SLOW)) for _ in range(7)])
    assert [each.wait(WAIT_S).attempt for each in tasks] == [1] * 7
    assert [each.result(WAIT_S) for each in tasks] == [b"0"] * 7
