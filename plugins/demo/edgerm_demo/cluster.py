"""A master and agents as processes of their own, over real WebSockets on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio

from edgerm_core.errors import EdgermError

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 8.0

USUAL_PORT: Final = 7070

MASTER_CONFIG: Final = """\
[master]
heartbeat_s = 0.5       # quick, so that the loss of an agent is noticed within seconds
lease_grace_s = 0.5
recovery_grace_s = 5.0
"""

AGENTS: Final = {
    "gateway": ("cpus:0.3;mem:512;ports:[31000-31099]", ("process", "wasm"), "gateway"),
    "node-a": ("cpus:0.15;mem:64", ("wasm",), "node"),
    "node-b": ("cpus:0.15;mem:64", ("wasm",), "node"),
}
"""Name to (resources, executors, class): one gateway, two small nodes."""


class Cluster:
    """The processes of the demonstration.

    Attributes:
        url: of the master.
        directory: data directories and logs of all of them.
        processes: by name.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"ws://127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_master(self) -> None:
        """Start the master."""
        config = self.directory / "edgerm.toml"
        config.write_text(MASTER_CONFIG)
        self._start("master", "--config", str(config), "master", "--listen", self.url)

    def start_agent(self, name: str) -> None:
        """Start one of AGENTS."""
        resources, executors, node_class = AGENTS[name]
        arguments = ["agent", "--master", self.url, "--name", name, "--resources", resources]
        arguments += ["--attribute", f"class={node_class}"]
        for executor in executors:
            arguments += ["--executor", executor]
        self._start(name, *arguments)

    def _start(self, name: str, *arguments: str) -> None:
        home = self.directory / name
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "edgerm_core.cli.main", *arguments, "--data-dir", str(home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def kill(self, name: str) -> int:
        """End a process as a power cut would; return its pid."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return process.pid

    def check(self) -> None:
        """See that everything that was started still runs.

        Raises:
            EdgermError: naming what ended, with the last line of its log.
        """
        for name, process in self.processes.items():
            code = process.poll()
            if code is not None:
                lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()
                raise EdgermError(f"{name} ended with {code}: {lines[-1] if lines else 'no output'}")

    def stop(self) -> None:
        """End everything, agents first, so that they can end what they run."""
        for name in sorted(self.processes, key=lambda name: name == "master"):
            process = self.processes[name]
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@contextmanager
def running(directory: Path) -> Iterator[Cluster]:
    """A cluster that is ended with the block, whatever happens in it."""
    cluster = Cluster(directory)
    try:
        yield cluster
    finally:
        cluster.stop()


def free_port() -> int:
    """Return 7070, so that the command line finds the cluster by itself, or any port if that is taken."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EdgermError("no free port on loopback")


async def wait_until(what: str, cluster: Cluster, done: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `await done()` is true.

    Raises:
        EdgermError: if it takes longer than START_TIMEOUT_S, or a process of the cluster ends.
    """
    with anyio.move_on_after(START_TIMEOUT_S):
        while not await done():
            cluster.check()
            await anyio.sleep(0.05)
        return
    raise EdgermError(f"{what} took longer than {START_TIMEOUT_S:g} s; the logs are in {cluster.directory}")
