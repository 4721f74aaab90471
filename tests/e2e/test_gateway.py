"""A gateway with devices behind it, in real processes: with the master, without it, and roaming."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.agent.journal import Journal
from edgerm_core.gateway.records import CustodyTaken, decode_record
from edgerm_core.testing.processes import CONFIG, STOP_S, Cluster, cluster_in, free_url

pytestmark = pytest.mark.timeout(240)

GATEWAY = """\
[gateway]
heartbeat_s = 0.5
lease_grace_s = 5.0
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path, CONFIG + GATEWAY) as cluster:
        yield cluster


class Cable:
    """A way to the master that can be cut."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._server.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_cut = threading.Event()
        self._begin(self._accept)

    def cut(self) -> None:
        self._is_cut.set()
        for end in self._open:
            hang_up(end)

    def mend(self) -> None:
        self._is_cut.clear()

    def close(self) -> None:
        self.cut()
        hang_up(self._server)
        for thread in self._threads:
            thread.join(10)
        for end in (self._server, *self._open):
            end.close()

    def _begin(self, *arguments: Any) -> None:
        thread = threading.Thread(target=arguments[0], args=arguments[1:], daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self._open.append(near)
            try:
                if self._is_cut.is_set():
                    raise ConnectionError
                far = socket.create_connection(self._target)
            except OSError:
                hang_up(near)
                continue
            self._open.append(far)
            if self._is_cut.is_set():  # Meanwhile.
                hang_up(near)
                hang_up(far)
            self._begin(self._carry, near, far)
            self._begin(self._carry, far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        hang_up(source)
        hang_up(sink)


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def start_gateway(cluster: Cluster, name: str, scheme: str, *arguments: str) -> str:
    """Start a gateway; return where its devices dial."""
    url = free_url(scheme)
    cluster.start_agent(name, "--gateway", url, "--executor", "process", *arguments)
    return url


def start_device(cluster: Cluster, name: str, *urls: str) -> None:
    agent = ["agent", "--name", name, "--data-dir", str(cluster.directory / name)]
    for url in urls:
        agent += ["--master", url]
    cluster.start(name, *agent, "--executor", "process")
    cluster.wait(f"device {name} is there", lambda: cluster.agent(name).get("connected") is True)


def run_on(cluster: Cluster, device: str, name: str, script: str) -> None:
    """Submit a small task for that device, and do not wait."""
    run = ("run", "--detach", "--name", name, "--cpus", "0.1", "--constraint", f"agent == {device}")
    cluster.edgerm(*run, "--process", "--", "sh", "-c", script)


def until(path: Path, exit_code: int) -> str:
    """Return a script that ends when the path is there."""
    return f"while [ ! -e {path} ]; do sleep 0.1; done; exit {exit_code}"


def in_custody(cluster: Cluster, gateway: str) -> bool:
    """Return whether the gateway has the end of a task on its disk."""
    copy = cluster.directory / "journal.copy"
    copy.write_bytes((cluster.directory / gateway / "gateway" / "journal").read_bytes())
    journal = Journal(copy)
    records = map(decode_record, journal.read())
    journal.close()
    return any(isinstance(r, CustodyTaken) and r.update.state.terminal for r in records)


@pytest.mark.parametrize("scheme", ["coap", "ws"])
def test_devices_behind_a_gateway_are_used_like_any_other_agent(cluster: Cluster, scheme: str) -> None:
    cluster.start_master()
    url = start_gateway(cluster, "gw", scheme)
    start_device(cluster, "d1", url)
    start_device(cluster, "d2", url)
    assert {row["name"]: row["via"] for row in cluster.rows("agents")} == {"gw": "", "d1": "gw", "d2": "gw"}
    assert "VIA" in cluster.edgerm("agents").stdout.splitlines()[0]
    (cluster.directory / "data.txt").write_text("carried by the gateway\n" * 10_000)
    for device in ("d1", "d2"):
        done = cluster.edgerm(
            *("run", "--constraint", f"agent == {device}", "--cpus", "0.1"),
            *("--file", f"{cluster.directory / 'data.txt'}:data.txt", "--process", "--"),
            *("sh", "-c", "wc -l < data.txt; tail -n 1 data.txt; exit 3"),
            check=False,
        )
        assert done.stdout.split() == ["10000", "carried", "by", "the", "gateway"]
        assert done.returncode == 3
    assert len(list((cluster.directory / "gw" / "blobs").iterdir())) == 1, "fetched once for both"
    run_on(cluster, "d1", "long", "sleep 1000")
    cluster.wait_for("long", "RUNNING")
    cluster.edgerm("kill", "long", "--grace", "0")
    assert cluster.wait_for("long", "KILLED", "FAILED")["state"] == "KILLED"
    began = time.monotonic()

    def heard_again() -> bool:
        passed_s = time.monotonic() - began
        return bool(cluster.agent("d1")["last_heard_s"] < passed_s)

    cluster.wait("d1 is heard again, by the gateway's heartbeats", heard_again)


@pytest.mark.parametrize("scheme", ["coap", "ws"])
def test_what_devices_end_without_the_master_outlives_device_and_gateway(
    cluster: Cluster, scheme: str
) -> None:
    cluster.start_master()
    url = start_gateway(cluster, "gw", scheme)
    start_device(cluster, "d1", url)
    stop = cluster.directory / "stop"
    run_on(cluster, "d1", "work", until(stop, 7))
    cluster.wait_for("work", "RUNNING")
    cluster.kill("master")
    stop.touch()
    cluster.wait("its end is in custody", lambda: in_custody(cluster, "gw"))
    cluster.kill("d1")
    cluster.kill("gw")
    cluster.start_agent("gw", "--gateway", url, "--executor", "process", ready=False)
    cluster.start_master()
    row = cluster.wait_for("work", "FAILED", "FINISHED", "GONE")
    assert (row["state"], row["exit_code"], row["attempt"]) == ("FAILED", 7, 1)


def test_a_device_may_come_and_work_while_the_uplink_is_cut(cluster: Cluster) -> None:
    cluster.start_master()
    cable = Cable(cluster.url)
    try:
        url = free_url("ws")
        cluster.start_agent("gw", "--gateway", url, "--executor", "process", url=cable.url)
        start_device(cluster, "d1", url)
        stop = cluster.directory / "stop"
        run_on(cluster, "d1", "work", until(stop, 7))
        cluster.wait_for("work", "RUNNING")
        cable.cut()
        cluster.processes["d1"].send_signal(signal.SIGTERM)
        cluster.processes.pop("d1").wait(STOP_S)
        seen = cluster.log("d1").count("registered with")
        cluster.start(
            "d1", *("agent", "--name", "d1", "--data-dir", str(cluster.directory / "d1")), "--master", url
        )
        cluster.wait(
            "the gateway has taken it in", lambda: cluster.log("d1").count("registered with") > seen
        )
        stop.touch()
        cluster.wait("its end is in custody", lambda: in_custody(cluster, "gw"))
        assert cluster.task("work")["state"] != "FAILED"
        cable.mend()
        row = cluster.wait_for("work", "FAILED")
        assert (row["exit_code"], row["attempt"]) == (7, 1)
        cluster.wait("the device is back", lambda: cluster.agent("d1").get("connected") is True)
    finally:
        cable.close()


def test_a_device_roams_and_no_task_runs_twice(cluster: Cluster) -> None:
    """Its first gateway is cut off, takes its end into custody and hangs; the device goes to another one,
    which knows nothing of that. Then the first one comes back."""
    cluster.start_master()
    cable = Cable(cluster.url)
    try:
        first, second = free_url("ws"), free_url("coap")
        cluster.start_agent("g1", "--gateway", first, "--executor", "process", url=cable.url)
        cluster.start_agent("g2", "--gateway", second, "--executor", "process")
        start_device(cluster, "d1", first, second)
        assert cluster.agent("d1")["via"] == "g1"
        starts, stop = cluster.directory / "starts", cluster.directory / "stop"
        run_on(cluster, "d1", "short", f"echo short >> {starts}; {until(stop, 7)}")
        run_on(cluster, "d1", "long", f"echo long >> {starts}; sleep 1000")
        cluster.wait_for("short", "RUNNING")
        cluster.wait_for("long", "RUNNING")
        cable.cut()
        stop.touch()
        cluster.wait("its end is in custody", lambda: in_custody(cluster, "g1"))
        cluster.processes["g1"].send_signal(signal.SIGSTOP)
        cluster.wait("it has roamed", lambda: cluster.agent("d1").get("via") == "g2")
        row = cluster.wait_for("short", "FAILED", "FINISHED")
        assert (row["exit_code"], row["attempt"]) == (7, 1), "by the device's last words"
        cable.mend()
        cluster.processes["g1"].send_signal(signal.SIGCONT)
        cluster.wait("g1 is back", lambda: cluster.agent("g1").get("connected") is True)
        row = cluster.wait_for("long", "RUNNING")
        assert (row["attempt"], row["restarts"]) == (1, 0)
        cluster.wait("it stays there", lambda: cluster.agent("d1").get("via") == "g2")
        assert len(starts.read_text().split()) == 2
    finally:
        cluster.processes["g1"].send_signal(signal.SIGCONT)
        cable.close()
