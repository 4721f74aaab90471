"""Daemons that are killed and come back: nothing is lost, and nothing is started twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

from edgerm_core.client import process, task, wasm
from edgerm_core.tasks import DisconnectPolicy, RestartPolicy, TaskState

from .clusters import PATIENCE_S, Cluster, is_alive, process_of

SMALL = "cpus:0.2;mem:16"

SPIN = b'(module (func (export "spin") (loop br 0)))'


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_a_master_killed_under_load_loses_nothing_and_starts_nothing_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    cluster.start_master()
    for name in ("a", "b"):
        cluster.start_agent(name, executors=("process",))
    framework = cluster.framework("load")
    script = f'echo "$EDGERM_TASK_ID" >> {starts}; sleep 0.3'
    tasks = []
    dice = random.Random(7)
    for _ in range(3):
        draft = task(process("sh", "-c", script), resources=SMALL, instances=15)
        tasks += framework.submit_many([draft])
        time.sleep(dice.uniform(0.0, 0.6))  # Any moment will do: that is the point.
        cluster.kill("master")
        cluster.start_master()
    ends = [one.wait(PATIENCE_S) for one in tasks]
    assert Counter(end.state for end in ends) == {TaskState.FINISHED: 45}
    assert {end.attempt for end in ends} == {1}
    assert Counter(lines(starts)) == {f"t{one.id}": 1 for one in tasks}
    rows = cluster.rows("tasks")
    assert Counter(row["state"] for row in rows) == {"FINISHED": 45}


LONG_RUN = """
echo $$ > {pid}; echo started >> {starts}; echo before
while [ ! -e {go} ]; do sleep 0.05; done
echo after; echo problem >&2; exit 7
"""


class LongRun:
    """A task that runs until it is told to end, with exit code 7."""

    def __init__(self, directory: Path) -> None:
        self.pid_path = directory / "pid"
        self.starts = directory / "starts"
        self.go = directory / "go"
        script = LONG_RUN.format(pid=self.pid_path, starts=self.starts, go=self.go)
        self.draft = task(process("sh", "-c", script), resources=SMALL, name="long-run")


def test_a_process_task_outlives_its_killed_agent_and_its_end_and_output_arrive(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    work = LongRun(tmp_path)
    long_run = cluster.framework("f").submit(work.draft)
    long_run.wait_running(PATIENCE_S)
    pid = process_of(work.pid_path)
    cluster.kill("a")
    assert is_alive(pid)
    cluster.restart_agent("a")
    assert is_alive(pid)
    assert long_run.state is TaskState.RUNNING
    work.go.touch()
    end = long_run.wait(PATIENCE_S)
    assert (end.state, end.exit_code, end.attempt, end.restarts) == (TaskState.FAILED, 7, 1, 0)
    assert lines(work.starts) == ["started"]
    assert b"".join(long_run.logs()) == b"before\nafter\n"
    assert b"".join(long_run.logs("stderr")) == b"problem\n"


def test_a_task_that_ends_while_its_agent_is_dead_is_reported_when_it_is_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    work = LongRun(tmp_path)
    long_run = cluster.framework("f").submit(work.draft)
    long_run.wait_running(PATIENCE_S)
    pid = process_of(work.pid_path)
    cluster.kill("a")
    work.go.touch()
    cluster.wait("the task has ended", lambda: not is_alive(pid))
    cluster.restart_agent("a")
    end = long_run.wait(PATIENCE_S)
    assert (end.state, end.exit_code) == (TaskState.FAILED, 7)
    assert lines(work.starts) == ["started"]


def test_an_agent_restarted_while_the_master_is_down_keeps_its_tasks(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    work = LongRun(tmp_path)
    long_run = cluster.framework("f").submit(work.draft)
    long_run.wait_running(PATIENCE_S)
    pid = process_of(work.pid_path)
    cluster.kill("master")
    cluster.kill("a")
    cluster.restart_agent("a", ready=False)
    cluster.wait("the agent looks for its master", lambda: "nobody listens there" in cluster.log("a"))
    assert is_alive(pid)
    cluster.start_master()
    cluster.wait_ready("a")
    work.go.touch()
    end = long_run.wait(PATIENCE_S)
    assert (end.state, end.exit_code, end.attempt) == (TaskState.FAILED, 7, 1)
    assert lines(work.starts) == ["started"]


def test_a_service_is_restarted_in_place_without_the_master_also_by_a_restarted_agent(
    cluster: Cluster, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    cluster.start_master()
    cluster.start_agent("a", executors=("process",))
    service = cluster.framework("f").submit(
        process("sh", "-c", f"echo run >> {starts}; sleep 0.3"),
        resources=SMALL,
        name="service",
        restart=RestartPolicy("always", attempts=1000, delay_s=0.1, max_delay_s=0.2),
    )
    service.wait_running(PATIENCE_S)
    cluster.kill("master")
    before = len(lines(starts))
    cluster.wait("it is restarted offline", lambda: len(lines(starts)) >= before + 3)
    cluster.kill("a")
    cluster.restart_agent("a", ready=False)
    before = len(lines(starts))
    cluster.wait("it is restarted by the new agent", lambda: len(lines(starts)) >= before + 3)
    cluster.start_master()
    cluster.wait_ready("a")
    row = cluster.wait(
        "the master hears of it",
        lambda: (found := cluster.task(service.id))["restarts"] >= 6 and found,
    )
    assert (row["attempt"], row["desired"]) == (1, "run")
    service.kill(grace_s=0.0)
    assert service.wait(PATIENCE_S).state is TaskState.KILLED
    count = len(lines(starts))
    time.sleep(0.8)  # Nothing can be awaited for what must not happen.
    assert len(lines(starts)) == count


def test_wasm_tasks_of_a_killed_agent_are_placed_elsewhere(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("wasm",))
    spinning = cluster.framework("f").submit(
        wasm(SPIN, function="spin"),
        resources=SMALL,
        name="spin",
        disconnect=DisconnectPolicy(lost_after_s=0.5),
    )
    spinning.wait_running(PATIENCE_S)
    cluster.start_agent("b", executors=("wasm",))
    cluster.kill("a")
    cluster.wait("it runs on b", lambda: cluster.task(spinning.id)["agent"] == "b")
    spinning.wait_running(PATIENCE_S)
    story = [(row["state"], row["agent"], row["attempt"]) for row in cluster.rows("story", task=f"t{spinning.id}")]
    assert ("UNREACHABLE", "a", 1) in story
    cluster.wait("it runs there", lambda: cluster.task(spinning.id)["state"] == "RUNNING")
    cluster.restart_agent("a")
    row = cluster.task(spinning.id)
    assert (row["state"], row["agent"], row["attempt"]) == ("RUNNING", "b", 2)


def test_wasm_tasks_of_an_agent_killed_and_back_at_once_start_again(cluster: Cluster) -> None:
    cluster.start_master()
    cluster.start_agent("a", executors=("wasm",))
    spinning = cluster.framework("f").submit(wasm(SPIN, function="spin"), resources=SMALL, name="spin")
    spinning.wait_running(PATIENCE_S)
    cluster.kill("a")
    cluster.restart_agent("a")
    cluster.wait("it runs again", lambda: cluster.task(spinning.id)["attempt"] == 2)
    reasons = [row["reason"] for row in cluster.rows("story", task=f"t{spinning.id}")]
    assert "agent-restarted" in reasons
