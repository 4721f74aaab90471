"""A cluster of real processes on loopback, for tests: started, killed and looked at from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

CONFIG = """\
[master]
heartbeat_s = 0.5
lease_grace_s = 8.5
recovery_grace_s = 20.0
"""
"""Quick, so that tests need not wait; leases and the recovery grace are long, so that a slow machine is no
outage: a lease is 10 s."""

EDGERM = (sys.executable, "-m", "edgerm_core.cli.main")
"""The command line, of these sources."""

WAIT_S = 60.0
"""For anything that should happen at once: generous, for machines that others use too."""

PORTS = range(10_000, 31_000)
"""Below those that the kernel gives to connections, so that none gets the port of a daemon that is just
being restarted, and below those that agents give to tasks."""

PORT_TRIES = 100

UNREACHED = 3
"""Exit code of commands that no master has answered in time."""

POLL_S = 0.1
STOP_S = 30.0

GONE_S = 30.0
"""For processes to end whose daemons or tasks have ended."""

directories: list[Path] = []
"""Of every cluster that this process has had; see `left_behind`."""


AnyCluster = TypeVar("AnyCluster", bound="Cluster")


def chunks(items: list[str], size: int = 500) -> Iterator[list[str]]:
    """Yield the items, so many at a time as one command line takes."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of PORTS that nobody listens on. Tests that run beside this one choose others."""
    for _ in range(PORT_TRIES):
        # Not `random`: hypothesis gives it the same seed in all processes.
        port = secrets.choice(PORTS)
        with socket.socket(type=kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port in {PORT_TRIES} tries")


def free_url(scheme: str) -> str:
    """Return a URL on loopback that nobody listens on."""
    kind = socket.SOCK_DGRAM if scheme == "coap" else socket.SOCK_STREAM
    return f"{scheme}://127.0.0.1:{free_port(kind)}"


class Cluster:
    """Daemons by name, in processes of their own, and the command line to talk to them.

    The master listens on one address for each of `schemes`; `url` is the first of them.
    """

    def __init__(self, directory: Path, config: str = CONFIG, schemes: tuple[str, ...] = ("ws",)) -> None:
        self.directory = directory
        self.urls = {scheme: free_url(scheme) for scheme in schemes}
        self.url = self.urls[schemes[0]]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.config = directory / "edgerm.toml"
        self.config.write_text(config)

    def within(self, name: str) -> list[str]:
        """Return what stands before a command that starts a daemon, or (no name) the command line.

        Override it to give each daemon surroundings of its own, such as a network namespace. The
        daemon must take the place of what is started, as with `exec`.
        """
        return []

    # --- daemons ------------------------------------------------------------------------------

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `edgerm ARGUMENTS`, its log in `<name>.log`."""
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [*self.within(name), *EDGERM, "--config", str(self.config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        self.processes[name] = process
        return process

    def start_master(self, *arguments: str, ready: bool = True) -> None:
        directory = str(self.directory / "master")
        listen = [word for url in self.urls.values() for word in ("--listen", url)]
        self.start("master", "master", *listen, "--data-dir", directory, *arguments)
        if ready:
            self.wait("the master answers", lambda: self.edgerm("ps", check=False).returncode == 0)

    def start_agent(self, name: str, *arguments: str, url: str = "", ready: bool = True) -> None:
        directory = str(self.directory / name)
        agent = ("agent", "--master", url or self.url, "--name", name, "--data-dir", directory)
        self.start(name, *agent, *arguments)
        if ready:
            self.wait(f"agent {name} is there", lambda: self.agent(name).get("connected") is True)

    def kill(self, name: str) -> None:
        """End a daemon as a power cut would."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """End a daemon in good order; return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(STOP_S)

    def stop_all(self) -> None:
        for name in sorted(self.processes, key=lambda name: name == "master"):
            process = self.processes[name]
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def end_tasks(self) -> None:
        """Kill all tasks and wait until those on agents that run have ended, if there is a master."""
        running = {name for name, process in self.processes.items() if process.poll() is None}
        if "master" not in running or running == {"master"}:
            return

        def live() -> list[str]:
            rows = self.rows("ps", "--limit", "10000")
            return [row["id"] for row in rows if not row["agent"] or row["agent"] in running]

        for some in chunks(live()):
            self.edgerm("kill", "--grace", "0", *some, check=False)
        self.wait("all tasks have ended", lambda: not live())

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    # --- the command line ---------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "EDGERM_MASTER": self.url, "EDGERM_DATA": str(self.directory / "data")}

    def edgerm(
        self, *arguments: str, check: bool = True, url: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line, against the master's address `url`; with `check` it must succeed."""
        done = subprocess.run(
            [*self.within(""), *EDGERM, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * WAIT_S,
            env={**self.environment, "EDGERM_MASTER": url or self.url},
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the rows of a listing.

        It only looks, and its patience is a person's: a master that is just being held up is asked again.
        """
        end = time.monotonic() + WAIT_S
        while True:
            done = self.edgerm(*arguments, "--json", check=False)
            if done.returncode != UNREACHED or time.monotonic() >= end:
                break
            time.sleep(POLL_S)
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def tasks(self) -> list[dict[str, Any]]:
        return self.rows("ps", "--all", "--limit", "10000")

    def task(self, name: str) -> dict[str, Any]:
        """Return the row of the only task with that name; empty if there is none."""
        found = [row for row in self.tasks() if row["name"] == name]
        assert len(found) <= 1, found
        return found[0] if found else {}

    def agent(self, name: str) -> dict[str, Any]:
        return next((row for row in self.rows("agents") if row["name"] == name), {})

    def wait(self, what: str, done: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        """Wait until `done()`; fail with all logs if it takes too long."""
        end = time.monotonic() + wait_s
        while not done():
            if time.monotonic() >= end:
                names = sorted(path.stem for path in self.directory.glob("*.log"))
                logs = "".join(f"\n--- {name}.log\n{self.log(name)}" for name in names)
                raise AssertionError(f"{what}: not within {wait_s:g} s{logs}")
            time.sleep(POLL_S)

    def wait_for(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until the task of that name is in one of the states; return its row as it was then."""
        row: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal row
            row = self.task(name)
            return row.get("state") in states

        self.wait(f"{name} is {states}", reached)
        return row


@contextlib.contextmanager
def cluster_in(
    directory: Path, config: str = CONFIG, schemes: tuple[str, ...] = ("ws",)
) -> Iterator[Cluster]:
    """A cluster that ends with the block: see `ending`."""
    with ending(Cluster(directory, config, schemes)) as cluster:
        yield cluster


@contextlib.contextmanager
def ending(cluster: AnyCluster) -> Iterator[AnyCluster]:
    """Let the cluster end with the block: its tasks, then its daemons; nothing else may be left.

    Keepers end by themselves some seconds later, and take their control groups with them: see
    `left_behind`.
    """
    directory = cluster.directory
    directories.append(directory)
    try:
        yield cluster
    finally:
        try:
            cluster.end_tasks()
        finally:
            cluster.stop_all()
            left = gone_after(GONE_S, lambda: processes_of(directory, but="edgerm_executor_process.keeper"))
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert not left, f"processes were left behind, and have been killed now: {left}"


def gone_after(wait_s: float, find: Callable[[], dict[Any, str]]) -> dict[Any, str]:
    """Return what `find` still finds after at most `wait_s`; at once when that is nothing."""
    end = time.monotonic() + wait_s
    while (left := find()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return left


def left_behind() -> dict[Any, str]:
    """Return the processes and the control groups that any cluster of this process has left by now."""
    left: dict[Any, str] = {}
    names: set[str] = set()
    for directory in directories:
        left |= processes_of(directory)
        for state_dir in directory.glob("*/executor-process"):
            names.add(hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12])
    for root, found, _ in os.walk("/sys/fs/cgroup"):
        left |= {f"{root}/{name}": "control group" for name in names.intersection(found)}
    return left


def processes_of(directory: Path, but: str = "") -> dict[Any, str]:
    """Return pid and command of all that runs because of the cluster in `directory`.

    Parameters:
        but: leave out commands with this in them.
    """
    mark = os.fsencode(directory)
    found: dict[Any, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
                about = (command, environment, os.fsencode((entry / "cwd").readlink()))
                text = command.replace(b"\0", b" ").decode(errors="replace")
                if any(mark in part for part in about) and not (but and but in text):
                    found[int(entry.name)] = text
    return found
