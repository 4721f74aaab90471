"""Clusters of real processes over real WebSockets on loopback, for the tests in this directory.

A `Cluster` starts `edgerm master` and `edgerm agent` as processes of their own, each with its own data
directory and log, talks to them through the command line and the SDK, kills them when a test says so,
and at its end sees that nothing of it is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from edgerm_core.client import blocking
from edgerm_core.errors import EdgermError

T = TypeVar("T")

PATIENCE_S: Final = 60.0
"""Longest wait for anything: a slow machine is not a fault."""

POLL_S: Final = 0.05

MASTER_CONFIG: Final = """\
heartbeat_s = 0.5
lease_grace_s = 2.0
recovery_grace_s = 15.0
"""
"""Quick enough for a test, slow enough for a machine that does other things too."""

COMMAND: Final = (sys.executable, "-m", "edgerm_core.cli.main")

made: list[Cluster] = []
"""Every cluster of this test run; `conftest` sees at the end that nothing of them is left."""


def wait_until(what: str, done: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Return the first true value of `done()`.

    Raises:
        AssertionError: naming `what`, if there is none in time.
    """
    deadline = time.monotonic() + patience_s
    while True:
        value = done()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:g} s"
        time.sleep(POLL_S)


def free_port() -> int:
    """Return a port on loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out[-4000:]}\n{self.err[-4000:]}"

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        assert self.code == 0, self
        return json.loads(self.out)


class Cluster:
    """A master and agents as processes.

    Attributes:
        directory: data directories and logs of all of them.
        url: of the master; the same after a restart.
        processes: those that should run, by name.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._agents: dict[str, tuple[str, ...]] = {}
        self._sdk = ExitStack()
        self._operator: blocking.Operator | None = None
        made.append(self)

    # --- daemons ----------------------------------------------------------------------------------

    def start_master(self, *, data_dir: Path | None = None, settings: str = "") -> None:
        """Start the master and wait until it listens."""
        self.launch_master("master", data_dir or self.directory / "master", self.url, settings)
        self.wait("the master listens", self._master_listens)

    def launch_master(self, name: str, data_dir: Path, url: str, settings: str = "") -> None:
        """Start a master and wait for nothing."""
        config = self.directory / f"{name}.toml"
        config.write_text(f'[master]\nlisten = ["{url}"]\ndata_dir = "{data_dir}"\n{MASTER_CONFIG}{settings}')
        self._start(name, "--config", str(config), "master")

    def _master_listens(self) -> bool:
        self._check("master")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start_agent(
        self,
        name: str,
        resources: str = "cpus:2;mem:512",
        *,
        executors: tuple[str, ...] = ("process", "wasm"),
        attributes: tuple[str, ...] = (),
        data_dir: Path | None = None,
        ready: bool = True,
    ) -> None:
        """Start an agent, and wait until the master counts it as ready."""
        arguments = ["agent", "--master", self.url, "--name", name, "--resources", resources]
        arguments += [part for executor in executors for part in ("--executor", executor)]
        arguments += [part for fact in attributes for part in ("--attribute", fact)]
        arguments += ["--data-dir", str(data_dir or self.directory / name)]
        self._agents[name] = tuple(arguments)
        self.restart_agent(name, ready=ready)

    def restart_agent(self, name: str, *, ready: bool = True) -> None:
        """Start an agent again as it was started before."""
        self._start(name, *self._agents[name])
        if ready:
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        """Wait until the master counts the agent as ready and connected."""

        def is_ready() -> bool:
            self._check(name)
            found = [row for row in self.rows("agents") if row["name"] == name]
            return bool(found) and found[0]["state"] == "READY" and bool(found[0]["connected"])

        self.wait(f"agent {name} is ready", is_ready)

    def _start(self, name: str, *arguments: str) -> None:
        assert name not in self.processes, f"{name} runs already"
        with open(self.log_path(name), "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,
            )

    def _check(self, name: str) -> None:
        code = self.processes[name].poll()
        assert code is None, f"{name} ended with {code}:\n{self.log(name)}"

    def kill(self, name: str) -> None:
        """End a daemon as a power cut of its process would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(PATIENCE_S)

    def stop(self, name: str) -> int:
        """End a daemon in good order; return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE_S)

    def ended(self, name: str) -> int:
        """Wait until a daemon has ended by itself; return its exit code."""
        return self.processes.pop(name).wait(PATIENCE_S)

    def log_path(self, name: str) -> Path:
        """Return where a daemon logs to."""
        return self.directory / f"{name}.log"

    def log(self, name: str) -> str:
        """Return what a daemon has logged."""
        path = self.log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        """Return the ends of all logs, for whoever looks into a failure."""
        paths = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-5000:]}" for p in paths)

    # --- talking to it ----------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Return the environment of everything that belongs to the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGERM_")}
        return {
            **kept,
            "EDGERM_MASTER": self.url,
            "EDGERM_DATA": str(self.directory / "data"),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }

    def run(self, *command: str, timeout_s: float = PATIENCE_S, cwd: Path | None = None) -> Result:
        """Run a program in the cluster's environment."""
        return Result(
            subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                cwd=cwd or self.directory,
                env=self.environment(),
                check=False,
            )
        )

    def edgerm(self, *arguments: str, timeout_s: float = PATIENCE_S) -> Result:
        """Run the command line."""
        return self.run(*COMMAND, *arguments, timeout_s=timeout_s)

    @property
    def operator(self) -> blocking.Operator:
        """A connected operator, which sits out restarts of the master."""
        if self._operator is None:
            connecting = blocking.connect_operator(self.url, connect_timeout_s=PATIENCE_S)
            self._operator = self._sdk.enter_context(connecting)
        return self._operator

    def framework(self, name: str, **options: Any) -> blocking.Framework:
        """Connect as a framework until the cluster ends."""
        connecting = blocking.connect_framework(
            self.url, name=name, connect_timeout_s=PATIENCE_S, **options
        )
        return self._sdk.enter_context(connecting)

    def rows(self, kind: str, **args: Any) -> list[dict[str, Any]]:
        """Return a listing."""
        return list(self.operator.query(kind, **args).rows)

    def task(self, task_id: int) -> dict[str, Any]:
        """Return the row of one task."""
        (row,) = [row for row in self.rows("tasks") if row["number"] == task_id]
        return row

    def wait(self, what: str, done: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        """As `wait_until`."""
        return wait_until(what, done, patience_s)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End all tasks, then all daemons, and see that nothing is left."""
        try:
            if self._running("master") and any(self._running(name) for name in self._agents):
                self._end_tasks()
        finally:
            self._sdk.close()
            for name in sorted(self.processes, key=lambda name: name.startswith("master")):
                process = self.processes[name]
                process.terminate()
                try:
                    process.wait(PATIENCE_S / 4)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self.processes.clear()
        left = wait_until_gone(lambda: [p for p in self.leftovers() if ".keeper" not in p[1]], 5.0)
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"processes were left behind: {left}"

    def _running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def _end_tasks(self) -> None:
        agents = {name for name in self._agents if self._running(name)}

        def live() -> list[int]:
            rows = self.rows("tasks", ended=False, limit=10_000)
            return [row["number"] for row in rows if not row["agent"] or row["agent"] in agents]

        try:
            self.operator.kill(live(), grace_s=0.0)  # type: ignore[arg-type]
        except EdgermError:
            pass  # Some had ended and were forgotten meanwhile; what is left shows below.
        self.wait("all tasks have ended", lambda: not live())

    def leftovers(self) -> list[tuple[int, str]]:
        """Return (pid, command) of everything that runs because of this cluster."""
        mark = os.fsencode(self.directory)
        found: list[tuple[int, str]] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                where = command + (entry / "environ").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
            except OSError:
                continue
            if mark in where:
                found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
        return found

    def cgroups(self) -> list[Path]:
        """Return the control groups that its agents made and that are still there."""
        found: list[Path] = []
        bases = [self.directory / name / "executor-process" for name in self._agents]
        names = {hashlib.sha256(os.fsencode(base)).hexdigest()[:12] for base in bases}
        for root, directories, _ in os.walk("/sys/fs/cgroup"):
            found += [Path(root, name) for name in directories if name in names]
        return found


def wait_until_gone(find: Callable[[], list[T]], patience_s: float) -> list[T]:
    """Return what `find` still finds after at most `patience_s`; as soon as that is nothing."""
    deadline = time.monotonic() + patience_s
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left


@contextmanager
def running_cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block, whatever happens in it."""
    cluster = Cluster(directory)
    try:
        yield cluster
    finally:
        cluster.close()


def process_of(path: Path) -> int:
    """Return the pid that a task wrote into a file, once it is there."""
    return int(wait_until(f"{path.name} is written", lambda: path.exists() and path.read_text().strip()))


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
