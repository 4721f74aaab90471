"""Daemons that are killed: nothing is lost, nothing starts twice, tasks outlive what started them."""

from __future__ import annotations

import collections
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

TASKS = 60


def write_load(path: Path, starts: Path) -> None:
    """A task file: each task leaves a line when it starts."""
    path.write_text(
        "\n".join(
            f"""
[[task]]
name = "load-{number}"
resources = "cpus:0.1;mem:8"
[[task.implementation]]
executor = "process"
args = ["sh", "-c", "echo $EDGERM_TASK_ID >> {starts}; sleep 0.2"]
"""
            for number in range(TASKS)
        )
    )


def test_a_master_killed_under_load_loses_nothing_and_starts_nothing_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    cluster.start_agent("a2", "--executor", "process")
    starts = tmp_path / "starts"
    write_load(tmp_path / "load.toml", starts)
    submit = subprocess.Popen(
        [sys.executable, "-m", "edgerm_core.cli.main", "submit", str(tmp_path / "load.toml"), "--wait"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=cluster.environment,
    )

    def begun() -> int:
        return len(starts.read_text().split()) if starts.exists() else 0

    for count in (1, 10, 25, 40):
        while True:
            ended = submit.poll()  # Before the count: all may begin and end between two looks.
            if begun() >= count:
                break
            assert ended is None
            time.sleep(0.05)
        cluster.kill("master")
        cluster.start_master(ready=False)
    assert submit.wait(120) == 0
    counts = collections.Counter(starts.read_text().split())
    assert len(counts) == TASKS
    assert set(counts.values()) == {1}
    assert {row["state"] for row in cluster.tasks()} == {"FINISHED"}


def long_task(directory: Path, name: str) -> str:
    """A shell command that leaves a line when it starts, prints, and ends with 7 when it is told to."""
    return (
        f"echo started >> {directory}/{name}.starts; i=0; while [ ! -e {directory}/{name}.end ]; do "
        f"i=$((i+1)); echo line $i; sleep 0.1; done; echo last line; exit 7"
    )


def test_a_process_runs_on_while_its_agent_is_killed_and_its_master_away(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    command = long_task(tmp_path, "svc")
    cluster.edgerm(
        "run", "--detach", "--name", "svc", "--cpus", "0.1", "--process", "--", "sh", "-c", command
    )
    cluster.wait_for("svc", "RUNNING")

    cluster.kill("a1")
    cluster.start_agent("a1", "--executor", "process")
    row = cluster.wait_for("svc", "RUNNING")
    assert (row["attempt"], row["restarts"]) == (1, 0)

    cluster.kill("master")
    assert cluster.stop("a1") == 0
    cluster.start_agent("a1", "--executor", "process", ready=False)
    cluster.wait("the agent dials", lambda: "nobody listens there" in cluster.log("a1"))
    (tmp_path / "svc.end").touch()
    cluster.start_master()
    row = cluster.wait_for("svc", "FAILED")
    assert (row["exit_code"], row["attempt"], row["restarts"]) == (7, 1, 0)
    assert (tmp_path / "svc.starts").read_text() == "started\n"
    assert cluster.edgerm("logs", "svc", "--tail", "10").stdout == "last line\n"


def test_a_task_that_ends_while_its_agent_is_dead_is_reported_when_it_is_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    command = f"echo $$ > {tmp_path}/pid; {long_task(tmp_path, 'svc')}"
    run = ("run", "--detach", "--name", "svc", "--cpus", "0.1", "--process", "--", "sh", "-c")
    cluster.edgerm(*run, command)
    # What its agent has not noted yet when it dies is started again.
    cluster.wait_for("svc", "RUNNING")
    cluster.wait("it has started", (tmp_path / "svc.starts").exists)
    pid = int((tmp_path / "pid").read_text())
    cluster.kill("a1")
    (tmp_path / "svc.end").touch()
    cluster.wait("it has ended", lambda: not Path(f"/proc/{pid}/cwd").exists())
    cluster.start_agent("a1", "--executor", "process")
    row = cluster.wait_for("svc", "FAILED")
    assert (row["exit_code"], row["attempt"]) == (7, 1)
    assert (tmp_path / "svc.starts").read_text() == "started\n"
    assert cluster.edgerm("logs", "svc", "--tail", "10").stdout == "last line\n"


def test_a_service_is_restarted_locally_while_the_master_is_away_also_by_a_restarted_agent(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "process")
    starts = tmp_path / "starts"

    def count() -> int:
        return len(starts.read_text().split()) if starts.exists() else 0

    command = f"echo s >> {starts}; sleep 0.2"
    run = ("run", "--detach", "--name", "svc", "--cpus", "0.1", "--restart", "always", "--process", "--")
    cluster.edgerm(*run, "sh", "-c", command)
    cluster.wait("it has started", lambda: count() >= 1)
    cluster.kill("master")
    seen = count()
    cluster.wait("it is started again offline", lambda: count() > seen)
    cluster.kill("a1")
    seen = count()
    cluster.start_agent("a1", "--executor", "process", ready=False)
    cluster.wait("the restarted agent starts it again, still offline", lambda: count() > seen)
    cluster.start_master()
    cluster.wait("the master hears of it", lambda: cluster.task("svc").get("restarts", 0) >= 2)
    assert cluster.task("svc")["attempt"] == 1
    cluster.edgerm("kill", "svc")
    cluster.wait_for("svc", "KILLED")


SLEEPER = """(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 3600000000000))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))))"""


def test_wasm_tasks_of_a_killed_agent_are_placed_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_master()
    (tmp_path / "sleeper.wat").write_text(SLEEPER)
    (tmp_path / "tasks.toml").write_text(
        """
[[task]]
name = "sleeper"
resources = "cpus:0.1;mem:8"
disconnect = { lost_after_s = 0.5 }
[[task.implementation]]
executor = "wasm"
module = "sleeper.wat"
"""
    )
    cluster.start_agent("a1", "--executor", "wasm")
    cluster.edgerm("submit", str(tmp_path / "tasks.toml"))
    assert cluster.wait_for("sleeper", "RUNNING")["agent"] == "a1"
    cluster.start_agent("a2", "--executor", "wasm")
    cluster.kill("a1")
    cluster.wait("it runs on a2", lambda: cluster.task("sleeper").get("agent") == "a2")
    row = cluster.wait_for("sleeper", "RUNNING")
    assert row["attempt"] == 2
    story = [line["reason"] for line in cluster.rows("story", "sleeper")]
    assert "agent-unreachable" in story

    # The first agent comes back with nothing running; the second one goes on.
    cluster.start_agent("a1", "--executor", "wasm")
    time.sleep(1.0)
    assert cluster.task("sleeper")["attempt"] == 2
    cluster.edgerm("kill", "sleeper")
    cluster.wait_for("sleeper", "KILLED")


def test_wasm_tasks_of_an_agent_killed_and_back_at_once_start_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_master()
    cluster.start_agent("a1", "--executor", "wasm")
    (tmp_path / "sleeper.wat").write_text(SLEEPER)
    run = ("run", "--detach", "--name", "sleeper", "--cpus", "0.1", "--mem", "8MiB")
    cluster.edgerm(*run, "--wasm", str(tmp_path / "sleeper.wat"))
    cluster.wait_for("sleeper", "RUNNING")
    cluster.kill("a1")
    cluster.start_agent("a1", "--executor", "wasm")
    cluster.wait("it runs again", lambda: cluster.task("sleeper")["attempt"] == 2)
    assert "agent-restarted" in [line["reason"] for line in cluster.rows("story", "sleeper")]
