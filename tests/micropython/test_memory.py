"""Memory: a board's heap stays as it is, and there is room for tasks."""

from __future__ import annotations

import re

import pytest

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import Board, Interpreter, NewBoard, python

WAIT_S = 60.0

HEARTBEATS = 1000

WATCHED = """
import asyncio, gc
from edgerm import part
from edgerm.agent import Agent

async def watch(agent):
    while agent.session.state != 5:
        await asyncio.sleep_ms(50)
    gc.collect()
    print("registered", gc.mem_free())
    last = -1
    while True:
        await asyncio.sleep_ms(200)
        n = agent.session.number
        if n // 100 != last:
            last = n // 100
            gc.collect()
            print("after", n, gc.mem_alloc())

async def main():
    agent = Agent(part("config").load("edgerm_config.json"))
    asyncio.create_task(watch(agent))
    await agent.serve()

asyncio.run(main())
"""
"""The agent as `main` starts it, and beside it somebody who writes down the heap."""


@pytest.mark.timeout(300)  # They take a minute; a busy machine is slower.
def test_a_thousand_heartbeats_leave_the_heap_as_it_was(cluster: Cluster, new_board: NewBoard) -> None:
    cluster.kill("master")
    cluster.config.write_text(
        "[master]\nheartbeat_s = 0.05\nheartbeat_constrained_s = 0.05\nlease_grace_s = 60.0\n"
    )
    cluster.start_master()
    board = new_board(start=False, observe=False)
    board.start(script=WATCHED)

    def allocated() -> dict[int, int]:
        return {int(n): int(size) for n, size in re.findall(r"after (\d+) (\d+)", board.log())}

    cluster.wait("a thousand heartbeats", lambda: max(allocated(), default=0) >= HEARTBEATS, 240)
    sizes = [size for n, size in sorted(allocated().items()) if n >= 100]
    assert max(sizes) - min(sizes) <= 256, allocated()


def test_a_hundred_tasks_leave_the_heap_as_it_was(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board(start=False)
    board.start(script=WATCHED.replace("// 100", "// 1"))

    def work(n: int) -> None:
        for each in range(n):
            source = f"def main(ctx):\n    print({each})\n    return {each}\n"
            assert framework.submit(task(python(source))).result(WAIT_S) == str(each).encode()

    def least() -> int:
        """Return the smallest heap of the last few looks: in between something may be on its way."""
        begin = len(board.log())
        cluster.wait("it is looked at", lambda: board.log().count("\nafter", begin) >= 5)
        return min(int(size) for size in re.findall(r"after \d+ (\d+)\n", board.log()[begin:]))

    work(30)
    before = least()
    work(70)
    # The interpreter's table of names grows in steps, and never shrinks.
    assert least() - before < 512


def test_a_heap_of_64_kib_has_room_for_tasks(
    cluster: Cluster, new_board: NewBoard, framework: Framework, interpreter: Interpreter
) -> None:
    """In a 64-bit port's bytes, whose pointers take twice as much, a board has at least what is free in
    64 KiB.

    At most it has half of what is free in as many words. A 32-bit port tells what it has.
    """
    word_bytes = 4 if int(interpreter.run("import sys; print(sys.maxsize)")) < 1 << 31 else 8
    free: dict[str, int] = {}
    for heap in ("64k", "64wk") if word_bytes == 8 else ("64k",):
        small = heap == "64k" and word_bytes == 8
        tight = {"frame_bytes": 512, "block_bytes": 256, "max_tasks": 1} if small else {}
        board = new_board(f"board-{heap}", start=False, **tight)
        board.start(heap, WATCHED)

        def registered(board: Board = board) -> re.Match[str] | None:
            return re.search(r"registered (\d+)\n", board.log())

        cluster.wait(f"registered with {heap}", lambda: registered() is not None)
        found = registered()
        assert found is not None
        free[heap] = int(found[1])
        draft = python(
            "import asyncio\nasync def main(ctx):\n    await asyncio.sleep(0.1)\n    return 42\n"
        )
        for _ in range(5):
            placed = task(draft, constraints=[f"agent==board-{heap}"])
            assert framework.submit(placed).result(WAIT_S) == b"42"
    print(f"free after registration: {free}")
    if word_bytes == 4:
        assert free["64k"] >= 24 << 10
    else:
        assert free["64k"] >= 16 << 10
        assert free["64wk"] >= 2 * 24 << 10
