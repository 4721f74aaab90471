"""Power cuts: nothing runs twice, every end is reported, and services start again without the master."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from edgerm_core.client import TaskFailed, task
from edgerm_core.client.blocking import Framework, Task
from edgerm_core.tasks import ReschedulePolicy, RestartPolicy, TaskState
from edgerm_core.testing.processes import Cluster
from tests.micropython.conftest import Board, NewBoard, python

WAIT_S = 60.0

TALLY = """
def main(ctx, *seconds):
    with open("tally", "a") as file:
        file.write("%d.%d.%d\\n" % (ctx.task_id, ctx.attempt, ctx.restarts))
    yield seconds[min(ctx.attempt, len(seconds)) - 1]
    return ctx.restarts
"""
"""Each of its attempts takes a time of its own; the last one is that of all further ones."""


def tally(board: Board) -> list[str]:
    """Return every run that has begun: task, attempt and restarts."""
    with contextlib.suppress(FileNotFoundError):
        return (board.directory / "tally").read_text().split()
    return []


def begun(cluster: Cluster, board: Board, runs: int) -> None:
    cluster.wait(f"{runs} runs have begun", lambda: len(tally(board)) >= runs)


def running_task(framework: Framework, *seconds: float, **options: object) -> Task:
    running = framework.submit(task(python(TALLY, *seconds), **options))  # type: ignore[arg-type]
    running.wait_running(WAIT_S)
    return running


def test_a_task_without_a_policy_is_reported_as_lost_with_its_board(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(framework, 60, reschedule=ReschedulePolicy(losses=0))
    begun(cluster, board, 1)
    board.cut_power()
    board.start()
    with pytest.raises(TaskFailed):
        running.result(WAIT_S)
    assert (running.update.state, running.update.reason) == (TaskState.FAILED, "agent-restarted")
    assert len(tally(board)) == 1


def test_a_task_that_may_run_again_gets_a_new_attempt(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(framework, 600, 0)
    begun(cluster, board, 1)
    board.cut_power()
    board.start()
    assert running.result(WAIT_S) == b"0"
    number = running.id
    assert tally(board) == [f"{number}.1.0", f"{number}.2.0"]


def test_a_service_starts_again_without_the_master_and_its_fence_grows(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(framework, 600, restart=RestartPolicy("always", 9, 300, 0.1))
    begun(cluster, board, 1)
    cluster.kill("master")
    for run in (2, 3):
        board.cut_power()
        board.start()
        begun(cluster, board, run)
    number = running.id
    assert tally(board) == [f"{number}.1.0", f"{number}.1.1", f"{number}.1.2"]
    cluster.start_master()
    cluster.wait("the master knows", lambda: running.update.restarts == 2)
    assert running.update.attempt == 1
    running.kill(0)
    assert running.wait(WAIT_S).state is TaskState.KILLED


def test_a_service_that_takes_its_board_down_is_given_up(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(
        framework, 600, restart=RestartPolicy("always", 2, 300, 0.1), reschedule=ReschedulePolicy(losses=0)
    )
    for run in (1, 2, 3):
        begun(cluster, board, run)
        board.cut_power()
        board.start()
    assert running.wait(WAIT_S).reason == "agent-restarted"
    assert len(tally(board)) == 3


def test_an_end_that_the_master_did_not_hear_of_is_reported_after_the_power_cut(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(framework, 1)
    cluster.kill("master")
    journal = board.data / "journal"
    cluster.wait("its end is written down", lambda: b"exited" in journal.read_bytes())
    board.cut_power()
    board.start()
    cluster.start_master()
    assert running.result(WAIT_S) == b"0"
    assert len(tally(board)) == 1


def test_a_finished_task_does_not_run_again_after_any_number_of_power_cuts(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    assert running_task(framework, 0).result(WAIT_S) == b"0"
    for _ in range(3):
        board.cut_power()
        board.start()
        cluster.wait("it is back", lambda: cluster.agent("board").get("connected") is True)
    assert running_task(framework, 0).result(WAIT_S) == b"0"
    assert len(tally(board)) == 2


def test_power_cuts_at_any_moment_lose_no_task_and_double_none(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board(max_tasks=8)
    policy = RestartPolicy("failure", 20, 300, 0.1)
    tasks = framework.submit_many(
        [task(python(TALLY, 0.3), restart=policy, mem="16KiB") for _ in range(12)]
    )
    for run in range(1, 12, 3):
        begun(cluster, board, run)
        board.cut_power()
        board.start()
    for each in tasks:
        assert each.wait(60).state is TaskState.FINISHED
    runs = tally(board)
    assert len(runs) == len(set(runs)), "a run with this fence has begun twice"


def test_a_journal_whose_last_record_was_cut_off_is_read_up_to_there(
    cluster: Cluster, new_board: NewBoard, framework: Framework
) -> None:
    board = new_board()
    running = running_task(framework, 600, restart=RestartPolicy("always", 9, 300, 0.1))
    board.cut_power()
    with (board.data / "journal").open("ab") as journal:
        journal.write(b"\x00\x20half a record")
    for run in (2, 3):
        board.start()
        begun(cluster, board, run)
        board.cut_power()
    board.start()
    begun(cluster, board, 4)
    running.kill(0)
    assert running.wait(WAIT_S).state is TaskState.KILLED
    assert [run.split(".")[2] for run in tally(board)] == ["0", "1", "2", "3"]


def test_the_journal_stays_short(cluster: Cluster, new_board: NewBoard, framework: Framework) -> None:
    board = new_board()
    for _ in range(50):
        assert (
            framework.submit(task(python("def main(ctx):\n    return 'x' * 60\n"))).result(WAIT_S)
            == b"x" * 60
        )
    assert Path(board.data / "journal").stat().st_size < 5000
    board.cut_power()
    board.start()
    assert running_task(framework, 0).result(WAIT_S) == b"0"
