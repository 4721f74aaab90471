"""The cluster of processes: what is started ends with the block, and failures show the logs."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from edgerm_core.testing.processes import (
    PORTS,
    Cluster,
    cluster_in,
    free_port,
    gone_after,
    left_behind,
    processes_of,
)


def test_logs_are_shown_when_waiting_takes_too_long(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        cluster.start("broken", "no-such-command").wait(30)
        with pytest.raises(
            AssertionError, match=r"(?s)a miracle: not within 0 s.*broken\.log.*no-such-command"
        ):
            cluster.wait("a miracle", lambda: False, 0.0)
        assert "no-such-command" in cluster.log("broken")


def test_a_free_port_is_none_that_somebody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("edgerm_core.testing.processes.PORTS", [port])
        with pytest.raises(OSError, match="no free port"):
            free_port()
    monkeypatch.undo()
    assert free_port() in PORTS


def test_command_that_fails_is_an_error_unless_it_may(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    assert cluster.edgerm("no-such-command", check=False).returncode == 2
    with pytest.raises(AssertionError, match="no-such-command"):
        cluster.edgerm("no-such-command")
    assert "edgerm" in cluster.edgerm("--version").stdout


def test_master_answers_and_ends_when_asked_or_killed(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        cluster.start_master()
        assert cluster.tasks() == []
        assert cluster.task("nobody") == {}
        assert cluster.agent("nobody") == {}
        assert cluster.stop("master") == 0
        cluster.start_master(ready=False)
        process = cluster.processes["master"]
        cluster.kill("master")
        assert process.returncode == -9


def test_everything_ends_with_the_block_also_after_an_error(tmp_path: Path) -> None:
    processes = []

    def fail_at_work() -> None:
        with cluster_in(tmp_path) as cluster:
            cluster.start_master()
            processes.append(cluster.processes["master"])
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail_at_work()
    assert [process.returncode for process in processes] == [0]
    assert processes_of(tmp_path) == {}


def test_what_a_cluster_leaves_behind_is_named_and_ended(tmp_path: Path) -> None:
    stray: list[subprocess.Popen[bytes]] = []

    def leave_something() -> None:
        with cluster_in(tmp_path) as cluster:
            stray.append(subprocess.Popen(["sleep", "600"], cwd=cluster.directory))

    with pytest.raises(AssertionError, match=r"processes were left behind.*sleep 600"):
        leave_something()
    assert stray[0].wait(30) == -9


def test_tasks_end_with_the_block_and_keepers_and_groups_soon_after(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("a1", "--executor", "process")
        cluster.edgerm("run", "--detach", "--name", "sleeper", "--process", "--", "sleep", "600")
        cluster.wait_for("sleeper", "RUNNING")
        assert "sleep 600" in " ".join(processes_of(tmp_path).values())
    assert not [text for text in processes_of(tmp_path).values() if "sleep" in text]
    assert gone_after(60.0, left_behind) == {}
