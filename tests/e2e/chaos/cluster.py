"""Daemons in networks and on "machines" of their own, and all that can be done to them."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from edgerm_core.cgroups import detect_cgroups
from edgerm_core.testing.processes import STOP_S, Cluster, processes_of
from tests.e2e.chaos.network import PORT, Network
from tests.e2e.chaos.plan import Fault
from tests.e2e.chaos.workload import PAIRS

ROOT: Final = Path(__file__).resolve().parents[3]

CONFIG: Final = """\
[master]
heartbeat_s = 0.5
lease_grace_s = 1.0
recovery_grace_s = 4.0

[agent]
resources = "cpus:3;mem:1GiB"
executors = ["process", "wasm"]
"""

OPERATOR_PORT: Final = 7071
WATCH_S: Final = 3.0
"""How long a start is waited for, to kill an agent in the middle of it."""

POWER_CUT_S: Final = 1.0
"""What the agent's journal may lose in a power cut: `limits.JOURNAL_SYNC_S`."""

KEEPER: Final = "edgerm_executor_process.keeper"
KILLS_OF_ONE_MACHINE: Final = 200


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes; they may have ended by themselves."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class ChaosCluster(Cluster):
    """A master, agents and frameworks, each in a network namespace; each agent with a boot id of its own.

    Attributes:
        agents, frameworks: their names.
        timeline: what was done, in lines.
        faults: how many of which kind there were.
        problems: what must not happen and did, such as a daemon that ended by itself.
    """

    def __init__(self, directory: Path, network: Network, seed: int) -> None:
        super().__init__(directory, CONFIG)
        self.url = f"ws://127.0.0.1:{OPERATOR_PORT}"
        self.urls = {"ws": self.url}
        self.network = network
        self.seed = seed
        self.agents: list[str] = []
        self.frameworks: dict[str, str] = {}
        self.timeline: list[str] = []
        self.faults: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.evidence = directory / "evidence"
        self.evidence.mkdir()
        self._began = time.time()
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._stopping = threading.Event()
        self._group_parents = detect_cgroups().parents.values()

    # --- daemons ----------------------------------------------------------------------------------

    def within(self, name: str) -> list[str]:
        if name not in self.agents:
            return self.network.within("master")
        # Its mounts are its own, so that it reads its own boot id; all of these exec, so that the pid
        # that was started is the daemon's.
        mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        alone = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount)
        return [*self.network.within(name), *alone, str(self._boot_file(name))]

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "NO_PROXY": "*"}

    def add_agent(self, name: str) -> None:
        """Make the machine of an agent and start the agent."""
        self.network.add(name)
        self.agents.append(name)
        self._samples[name] = deque(maxlen=200)
        self._new_boot(name)
        self.start_again(name)

    def add_framework(self, name: str, manner: str) -> None:
        """Make the network of a framework and start it."""
        self.network.add(name)
        self.frameworks[name] = manner
        self.start_again(name)

    def start_again(self, name: str) -> None:
        """Start a daemon that does not run; it need not be ready."""
        if name == "master":
            listen = ("--listen", f"ws://0.0.0.0:{PORT}", "--insecure")
            self.start_master(*listen, ready=False)
        elif name in self.agents:
            pair = f"pair={PAIRS[self.agents.index(name) % len(PAIRS)]}"
            url = self.network.url(name)
            self.start_agent(name, "--insecure", "--attribute", pair, url=url, ready=False)
        else:
            self._start_framework(name)

    def _start_framework(self, name: str) -> None:
        program = [sys.executable, "-m", "tests.e2e.chaos.framework", self.network.url(name), name]
        program += [str(self.seed), str(self.evidence), self.frameworks[name]]
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.network.within(name), *program],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=ROOT,
            )

    def listing(self) -> dict[str, Any]:
        """Return all that the master says."""
        done = subprocess.run(
            [*self.within(""), sys.executable, "-m", "tests.e2e.chaos.listing", self.url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60.0,
            env=self.environment,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        rows: dict[str, Any] = json.loads(done.stdout)
        return rows

    # --- machines ---------------------------------------------------------------------------------

    def _boot_file(self, name: str) -> Path:
        return self.directory / f"{name}.boot-id"

    def _new_boot(self, name: str) -> None:
        # In place: what is bound is the file, not its name.
        self._boot_file(name).write_text(f"{secrets.token_hex(8)}\n")

    def keeper(self, name: str) -> int | None:
        """Return the process id of the agent's keeper, if it has one."""
        return next((pid for pid, text in self._machine(name).items() if KEEPER in text), None)

    def _machine(self, name: str) -> dict[Any, str]:
        return processes_of(self.directory / name)

    def cut_power(self, name: str, lost_s: float) -> None:
        """Let the agent's machine lose everything at once, and what was written last; a new boot follows.

        Parameters:
            lost_s: how much of its journal is lost.
        """
        # The agent and the keeper first: neither may see how the others end.
        kill_all(pid for pid in (self.processes[name].pid, self.keeper(name)) if pid is not None)
        self.kill(name)
        since = time.monotonic() - lost_s
        left: dict[Any, str] = {}
        for _ in range(KILLS_OF_ONE_MACHINE):
            left = self._machine(name) | self._remove_groups(name)
            if not left:
                break
            kill_all(left)
            time.sleep(0.01)
        assert not left, f"{name}: cannot be killed: {left}"
        # The first after that moment: who samples may have been held up before it, and no more may be lost.
        # Of a copy, for samples are added meanwhile.
        size = next((size for at, size in list(self._samples[name]) if at >= since), 0)
        journal = self.directory / name / "journal"
        if size and journal.stat().st_size > size:
            self.note(f"{name}: its journal loses {journal.stat().st_size - size} bytes")
            os.truncate(journal, size)
        self._samples[name].clear()
        self._new_boot(name)

    def _remove_groups(self, name: str) -> dict[Any, str]:
        """Remove the control groups of tasks that are dead; return the processes in the others."""
        left: dict[Any, str] = {}
        for group in self.groups(name):
            try:
                os.rmdir(group)
            except OSError:
                with contextlib.suppress(OSError):  # Somebody else has removed it.
                    pids = Path(group, "cgroup.procs").read_text().split()
                    left |= {int(pid): group for pid in pids}
        return left

    def groups(self, name: str) -> list[str]:
        """Return the control groups of the agent's tasks."""
        found = []
        for parent in self._agent_groups(name):
            with contextlib.suppress(FileNotFoundError):
                found += [entry.path for entry in os.scandir(parent) if entry.is_dir()]
        return found

    def _agent_groups(self, name: str) -> set[Path]:
        state_dir = self.directory / name / "executor-process"
        mark = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]
        return {parent / "edgerm" / mark for parent in self._group_parents}

    def remove_agent_groups(self) -> None:
        """Remove the empty groups around the tasks': a keeper that was killed could not."""
        for name in self.agents:
            for group in self._agent_groups(name):
                with contextlib.suppress(OSError):
                    group.rmdir()

    def _sample_journals(self) -> None:
        while not self._stopping.wait(0.05):
            for name, samples in self._samples.items():
                with contextlib.suppress(OSError):
                    samples.append((time.monotonic(), (self.directory / name / "journal").stat().st_size))

    # --- faults -----------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Put a line on the timeline."""
        self.timeline.append(f"{time.time():.3f} +{time.time() - self._began:5.1f} s  {text}")

    def suffer(self, plan: list[list[Fault]]) -> None:
        """Carry out all faults, those of different victims at the same time; then all is right again."""
        began = time.monotonic()
        sampler = threading.Thread(target=self._sample_journals)
        lanes = [threading.Thread(target=self._guarded, args=(lane, began)) for lane in plan]
        for thread in (sampler, *lanes):
            thread.start()
        for thread in lanes:
            thread.join()
        self._stopping.set()
        sampler.join()

    def _guarded(self, lane: list[Fault], began: float) -> None:
        try:
            for fault in lane:
                time.sleep(max(0.0, began + fault.at_s - time.monotonic()))
                self.note(str(fault))
                self.faults[f"{'cut ' if fault.link else ''}{fault.kind}"] += 1
                with self._fault(fault):
                    time.sleep(fault.for_s)
                if fault.kind != "kill keeper":
                    self.note(f"{fault.victim}: {fault.kind} is over")
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    def check_alive(self, name: str) -> None:
        """Note a daemon that has ended by itself."""
        code = self.processes[name].poll()
        if code is not None:
            self.problems.append(f"{name} ended by itself with {code}: {self.log(name)[-2000:]}")

    @contextlib.contextmanager
    def _fault(self, fault: Fault) -> Iterator[None]:
        name = fault.victim
        if fault.link:
            self.network.cut(name, fault.kind)  # type: ignore[arg-type]
            yield
            self.network.heal(name)
            return
        if name in self.processes:
            self.check_alive(name)
        strike: dict[str, Callable[[Fault], contextlib.AbstractContextManager[None]]] = {
            "kill": self._killed,
            "kill in a start": self._killed_in_a_start,
            "kill both in a start": self._killed_in_a_start,
            "end": self._ended,
            "hang": self._hung,
            "kill keeper": self._without_keeper,
            "reboot": self._rebooted,
            "drain": self._drained,
        }
        with strike[fault.kind](fault):
            yield

    @contextlib.contextmanager
    def _killed(self, fault: Fault) -> Iterator[None]:
        self.kill(fault.victim)
        yield
        self.start_again(fault.victim)

    @contextlib.contextmanager
    def _killed_in_a_start(self, fault: Fault) -> Iterator[None]:
        """Kill the agent as soon as its keeper makes a control group: the start is not on record yet.

        Both: and the keeper, so that nobody is left who knows of the run.
        """
        keeper = self.keeper(fault.victim)
        known = set(self.groups(fault.victim))
        end = time.monotonic() + WATCH_S
        while not set(self.groups(fault.victim)) - known and time.monotonic() < end:
            known &= set(self.groups(fault.victim))
        time.sleep(0.02 * fault.part)
        self.processes[fault.victim].send_signal(signal.SIGKILL)
        if keeper is not None and fault.kind == "kill both in a start":
            kill_all([keeper])
        with self._killed(fault):
            self.note(f"{fault.victim}: killed in a start")
            yield

    @contextlib.contextmanager
    def _ended(self, fault: Fault) -> Iterator[None]:
        process = self.processes[fault.victim]
        process.terminate()
        code = process.wait(STOP_S)
        del self.processes[fault.victim]
        if code not in (0, -signal.SIGTERM):  # It may have been told before it could listen.
            self.problems.append(f"{fault.victim} ended with {code} when it was told to")
        yield
        self.start_again(fault.victim)

    @contextlib.contextmanager
    def _hung(self, fault: Fault) -> Iterator[None]:
        process = self.processes[fault.victim]
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def _without_keeper(self, fault: Fault) -> Iterator[None]:
        keeper = self.keeper(fault.victim)
        if keeper is not None:
            kill_all([keeper])
        yield

    @contextlib.contextmanager
    def _rebooted(self, fault: Fault) -> Iterator[None]:
        self.cut_power(fault.victim, POWER_CUT_S * fault.part)
        yield
        self.start_again(fault.victim)

    @contextlib.contextmanager
    def _drained(self, fault: Fault) -> Iterator[None]:
        self.edgerm("drain", fault.victim, check=False)
        yield
        self.wait("it is in use again", lambda: self._in_use_again(fault.victim))

    def _in_use_again(self, name: str) -> bool:
        return self.edgerm("drain", "--undo", name, check=False).returncode == 0

    def calm(self) -> None:
        """Put right whatever a fault that was broken off has left, and submit nothing more."""
        self._stopping.set()
        for name in self.frameworks.keys() & self.processes.keys():
            self.kill(name)
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        for name in (*self.agents, *self.frameworks):
            self.network.heal(name)
