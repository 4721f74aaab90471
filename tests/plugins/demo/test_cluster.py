"""The processes of the demonstration: started, watched, ended."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from edgerm_demo import cluster as cluster_module
from edgerm_demo.cluster import Cluster, free_port, running, wait_until

from edgerm_core.errors import EdgermError
from edgerm_core.testing.processes import free_port as unused_port

PATIENCE_S = 60.0

TELLS = """\
import signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "deaf" else end)
print("ready", flush=True)
time.sleep(60)
"""
"""Writes its name into a file when it is asked to end; `deaf` takes no notice."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """With a port of its own, which another cluster is not about to take, and time for a slow machine."""
    monkeypatch.setattr(cluster_module, "USUAL_PORT", unused_port())
    monkeypatch.setattr(cluster_module, "START_TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(cluster_module, "STOP_TIMEOUT_S", PATIENCE_S)
    with running(tmp_path) as made:
        yield made


def start_telling(cluster: Cluster, name: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", TELLS, str(cluster.directory / "ended"), name], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    cluster.processes[name] = process
    return process


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    process.wait(PATIENCE_S)


def test_usual_port_is_taken_while_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    port = unused_port()
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(cluster_module, "USUAL_PORT", port)
        instead = free_port()
        assert instead not in (0, port)
    assert free_port() == port


def test_check_names_what_ended_and_its_last_words(cluster: Cluster) -> None:
    cluster._start("node-a", "no-such-command")
    wait_for_end(cluster.processes["node-a"])
    with pytest.raises(EdgermError, match=r"^node-a ended with 2: .*no-such-command"):
        cluster.check()


def test_check_of_what_ended_without_a_word(cluster: Cluster) -> None:
    cluster.processes["node-a"] = subprocess.Popen([sys.executable, "-c", ""])
    (cluster.directory / "node-a.log").touch()
    wait_for_end(cluster.processes["node-a"])
    with pytest.raises(EdgermError, match=r"^node-a ended with 0: no output$"):
        cluster.check()


def test_stop_ends_agents_before_the_master(cluster: Cluster) -> None:
    processes = [start_telling(cluster, name) for name in ("master", "node-a", "gateway")]
    cluster.check()
    cluster.stop()
    assert [process.returncode for process in processes] == [0, 0, 0]
    ended = (cluster.directory / "ended").read_text().split()
    assert sorted(ended[:2]) == ["gateway", "node-a"]
    assert ended[2:] == ["master"]
    assert cluster.processes == {}
    cluster.stop()


def test_what_does_not_end_when_asked_is_killed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "STOP_TIMEOUT_S", 0.2)
    process = start_telling(cluster, "deaf")
    cluster.stop()
    assert process.returncode == -9


def test_killed_process_is_gone_and_not_missed(cluster: Cluster) -> None:
    process = start_telling(cluster, "node-a")
    assert cluster.kill("node-a") == process.pid
    assert process.returncode == -9
    assert not (cluster.directory / "ended").exists()
    cluster.check()


def test_everything_ends_with_the_block_also_after_an_error(tmp_path: Path) -> None:
    processes = []

    def fail_at_work() -> None:
        with running(tmp_path) as made:
            processes.append(start_telling(made, "node-a"))
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail_at_work()
    assert [process.returncode for process in processes] == [0]


@pytest.mark.anyio
async def test_master_and_an_agent_start_and_end(cluster: Cluster) -> None:
    cluster.start_master()
    port = urlsplit(cluster.url).port

    async def listens() -> bool:
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port or 0)
        except OSError:
            return False
        await stream.aclose()
        return True

    await wait_until("starting the master", cluster, listens)
    cluster.start_agent("node-a")

    async def known() -> bool:
        return b"node-a" in (cluster.directory / "master.log").read_bytes()

    await wait_until("starting the agent", cluster, known)
    processes = list(cluster.processes.values())
    await anyio.to_thread.run_sync(cluster.stop)
    assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.anyio
async def test_waiting_ends_when_a_process_does(cluster: Cluster) -> None:
    cluster._start("master", "no-such-command")

    async def never() -> bool:
        return False

    with anyio.fail_after(PATIENCE_S), pytest.raises(EdgermError, match="master ended with 2"):
        await wait_until("starting", cluster, never)


@pytest.mark.anyio
async def test_waiting_too_long_says_for_what_and_where_the_logs_are(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "START_TIMEOUT_S", 0.1)

    async def never() -> bool:
        return False

    with pytest.raises(EdgermError) as caught:
        await wait_until("starting the agents", cluster, never)
    assert str(caught.value) == (
        f"starting the agents took longer than 0.1 s; the logs are in {cluster.directory}"
    )
