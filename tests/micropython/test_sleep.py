"""Boards that sleep between exchanges, with a `machine` that the tests play."""

from __future__ import annotations

import time

from edgerm_core.client import task
from edgerm_core.client.blocking import Framework
from edgerm_core.tasks import ReschedulePolicy
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import Board, NewBoard, python

WAIT_S = 30.0
ASLEEP = 42

MACHINE = f"""
# Stands in for the firmware's module. What the RTC keeps is in a file; a board that sleeps deeply starts
# anew.
import sys, time

def note(word):
    with open("naps", "a") as file:
        file.write(word + "\\n")

def lightsleep(ms):
    note("light %d" % ms)
    time.sleep_ms(ms)

def deepsleep(ms):
    note("deep %d" % ms)
    sys.exit({ASLEEP})

class RTC:
    def memory(self, data=None):
        if data is None:
            try:
                with open("rtc", "rb") as file:
                    return file.read()
            except OSError:
                return b""
        with open("rtc", "wb") as file:
            file.write(data)

class WDT:
    # Whether it is hungry is for the test to see: it is fed by writing to a file.
    def __init__(self, timeout):
        note("watchdog %d" % timeout)
        self.fed = open("fed", "wb")
    def feed(self):
        self.fed.seek(0)
        self.fed.write(b"fed")
        self.fed.flush()
"""


def sleeping(new_board: NewBoard, **config: object) -> Board:
    board = new_board(start=False, observe=False, **config)
    (board.directory / "machine.py").write_text(MACHINE)
    board.start()
    return board


def naps(board: Board) -> list[str]:
    path = board.directory / "naps"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def test_a_board_that_sleeps_lightly_naps_between_heartbeats_and_still_works(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = sleeping(new_board, sleep="light", watchdog_s=8)
    assert framework.submit(task(python("def main(ctx):\n    return 1\n"))).result(WAIT_S) == b"1"
    cluster.wait("it naps", lambda: sum(nap.startswith("light") for nap in naps(board)) >= 3)
    assert naps(board)[0] == "watchdog 8000"


def test_a_board_that_sleeps_deeply_goes_on_with_its_session_and_fetches_its_orders(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = sleeping(new_board, sleep="deep")
    starts = 1

    def asleep() -> bool:
        return not board.runs()

    for _ in range(3):
        cluster.wait("it sleeps", asleep)
        assert board.wait() == ASLEEP
        time.sleep(0.3)
        board.start()
        starts += 1
    running = framework.submit(task(python("def main(ctx):\n    yield 1\n    return 'done'\n")))

    def done() -> bool:
        nonlocal starts
        if asleep():
            assert board.wait() == ASLEEP
            board.start()
            starts += 1
        return running.update.state.terminal

    cluster.wait("the task is done", done)
    assert running.result(WAIT_S) == b"done"
    assert running.update.attempt == 1
    journal = (board.data / "journal").read_bytes()
    assert journal.count(b"\x82\x18\x67") == 1, f"{starts} starts have opened more than one session"


def test_after_a_deep_sleep_that_took_too_long_it_opens_another_session(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = sleeping(new_board, sleep="deep")
    cluster.wait("it sleeps", lambda: not board.runs())
    cluster.kill("master")  # A restarted master has forgotten the session too.
    cluster.start_master()
    board.start()
    cluster.wait("it is back", lambda: cluster.agent("board").get("connected") is True)


def test_a_task_that_never_yields_starves_the_watchdog_and_counts_as_lost(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = sleeping(new_board, watchdog_s=3)
    cluster.wait("it is there", lambda: cluster.agent("board").get("connected") is True)
    endless = task(
        python("def main(ctx):\n    open('begun', 'w').close()\n    while True:\n        pass\n"),
        reschedule=ReschedulePolicy(losses=0),
    )
    running = framework.submit(endless)
    cluster.wait("it runs", lambda: (board.directory / "begun").exists())
    fed = board.directory / "fed"
    cluster.wait("the watchdog bites", lambda: time.time() - fed.stat().st_mtime > 3)
    board.cut_power()
    board.start()
    assert running.wait(WAIT_S).reason == "agent-restarted"
    assert framework.submit(task(python("def main(ctx):\n    return 1\n"))).result(WAIT_S) == b"1"
