"""One run, as the keeper sees it: its process, its output, its end. Part of the keeper.

    starting --exec--> running --main process ended, or kill--> ending --all are dead--> ended

`ending` kills whatever the main process left behind, round by round, until its groups are empty; only
then is the exit written down and told.
"""

# ruff: noqa: PTH105, PTH108
from __future__ import annotations

import json
import os
import signal
import time

from edgerm_core.logs import STDERR, STDOUT, LogWriter
from edgerm_executor_process import processes, spawn
from edgerm_executor_process.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

READ_BYTES: Final = 64 << 10
"""Taken from a pipe at once: what a Linux pipe holds."""

DRAIN_BYTES: Final = 4 << 20
"""Read at most after the end; more can only come from a process that escaped."""

KILL_ROUNDS: Final = 500
"""Rounds of killing what a run left behind, before it is given up as stuck in the kernel."""

KILL_ROUND_S: Final = 0.02

STARTING: Final = "starting"
RUNNING: Final = "running"
ENDING: Final = "ending"
ENDED: Final = "ended"


class Output:
    """One stream of a run: a FIFO that the task writes and the keeper reads into the log ring.

    A FIFO and not a pipe: the task holds it open for reading too, so that it does not die of SIGPIPE
    when the keeper is killed, and the next keeper finds it again by its name.
    """

    def __init__(self, path: str, log: LogWriter) -> None:
        self.path = path
        self.lost_bytes = 0
        self.lost_why = ""
        self._log = log
        self.reader: int | None = None

    def create(self, owner: tuple[int, int] | None) -> int:
        """Make the FIFO; return the descriptor for the task.

        Raises:
            OSError: if the file system refuses.
        """
        self._unlink()
        os.mkfifo(self.path, 0o600)
        if owner is not None:
            os.chown(self.path, *owner)
        self.open()
        return os.open(self.path, os.O_RDWR)

    def open(self) -> None:
        """Open the reading end of a FIFO that is there.

        Raises:
            OSError: if it is not.
        """
        self.reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> int:
        """Move what waits into the log, one piece; return its size, 0: nothing (any more)."""
        if self.reader is None:
            return 0
        try:
            data = os.read(self.reader, READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            try:
                self._log.write(data)
            except OSError as error:
                # The disk's trouble must not become the task's: it would block for ever, or die.
                self.lost_bytes += len(data)
                self.lost_why = os.strerror(error.errno) if error.errno else str(error)
        return len(data)

    def finish(self) -> None:
        """Read the rest, close, and remove the FIFO."""
        total = 0
        while total < DRAIN_BYTES:
            size = self.read()
            if not size:
                break
            total += size
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        self._log.close()
        self._unlink()

    def _unlink(self) -> None:
        try:
            os.unlink(self.path)
        except OSError:
            pass


class Run:
    """One run.

    Attributes:
        key: names it: `<state_dir>/<name>`, also the beginning of its files' names.
        state: see the module.
        pid, start: its main process; 0: none yet.
        told: descriptor that tells how the exec went, while starting.
        deadline: when a politely stopped run is killed; None: not being stopped.
        next_round: when to look again while ending.
        start_error: why it never ran.
        record: how it ended.
        saved: whether the record is on disk.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.key: str = data["key"]
        self.state = STARTING
        self.pid = 0
        self.start = 0
        self.told: int | None = None
        self.deadline: float | None = None
        self.next_round: float | None = None
        self.start_error: spawn.StartError | None = None
        self.record: dict[str, Any] = {}
        self.saved = False
        self.group = Group(data["group"])
        self.outputs = tuple(
            Output(f"{self.key}.{stream}", LogWriter(data["log_dir"], stream, data["log_limit_bytes"]))
            for stream in (STDOUT, STDERR)
        )
        self._mark = os.fsencode(data["mark"])
        self._name = ""
        self._work_dir = ""
        self._main_alive = False
        self._status: int | None = None
        self._rounds = 0

    # --- begin ---

    def begin(self, request: dict[str, Any]) -> None:
        """Start the process; `exec_told` says later how that went.

        Raises:
            spawn.StartError: with the sentence. Nothing is left behind.
        """
        env: dict[str, str] = request["env"]
        ids: tuple[int, int, list[int]] | None = request["ids"]
        self._name = request["argv"][0]
        self._work_dir = request["work_dir"]
        program = spawn.find_program(self._name, env, self._work_dir)
        if self.group.exists():
            self._end_earlier()
            raise spawn.StartError(
                "its keeper was killed while it was starting the task, which may have begun",
                recoverable=True,
                lost=True,
            )
        task_ends: list[int] = []
        try:
            self._unlink_exit()
            for output in self.outputs:
                task_ends.append(output.create(None if ids is None else (ids[0], ids[1])))
            self.group.make()
            self.pid, self.told = spawn.spawn(
                program,
                request["argv"],
                env,
                self._work_dir,
                (task_ends[0], task_ends[1]),
                self.group.procs_files(),
                ids,
            )
        except OSError as error:
            for output in self.outputs:
                output.finish()
            self.group.remove()
            raise spawn.StartError(
                f"the agent cannot prepare the run: {error}", recoverable=True
            ) from error
        finally:
            for descriptor in task_ends:
                os.close(descriptor)
        self._main_alive = True
        stat = processes.read_stat(self.pid)
        self.start = stat.start if stat is not None else 0

    def _end_earlier(self) -> None:
        """End what a keeper that was killed in the middle of this very start has left."""
        self.group.forbid_forks()
        self.group.unthrottle()
        for _ in range(KILL_ROUNDS):
            pids = self.group.pids()
            if not pids and self.group.remove():
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(KILL_ROUND_S)

    def exec_told(self) -> None:
        """Read how the exec went: now the task runs, or `start_error` says why not."""
        assert self.told is not None
        try:
            told = os.read(self.told, 4096)
        except BlockingIOError:
            return
        os.close(self.told)
        self.told = None
        if told:
            self.start_error = spawn.explain(told, self._name, self._work_dir)
        elif self.state == STARTING:
            self.state = RUNNING

    def adopt(self, pid: int, start: int) -> None:
        """Take up a run that an earlier keeper started and that may have ended."""
        self.pid = pid
        self.start = start
        self._main_alive = processes.is_same(pid, start)
        self.state = RUNNING
        for output in self.outputs:
            try:
                output.open()
            except OSError:
                pass  # Removed by hand; the task's output is lost, the task is not.

    # --- end ---

    def alive(self) -> list[int]:
        """Return the live processes of the run."""
        if self.group:
            return self.group.pids()
        return processes.family(self.pid, self.start, self._mark) if self.pid else []

    def ask_to_end(self, deadline: float) -> None:
        """Send SIGTERM to all of it; the keeper kills it at the deadline. The earliest deadline counts."""
        if self.state == ENDED:
            return
        if self.deadline is None:
            self._signal_all(signal.SIGTERM)
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def main_ended(self, status: int | None) -> None:
        """The main process has ended; `status` as waitpid gives it, None: unknown."""
        self._main_alive = False
        self._status = status

    def end(self, now: float) -> bool:
        """Kill what is left; return whether all of it is dead and the run has ended.

        To be called again at `next_round` until it is.
        """
        if self.state == ENDED:
            return True
        if self.state != ENDING:
            self.state = ENDING
            if self.alive():
                self.group.forbid_forks()
        left = self._signal_all(signal.SIGKILL)
        if left and self._rounds == 0:
            self.group.unthrottle()
        if (left or self._main_alive) and self._rounds < KILL_ROUNDS:
            self._rounds += 1
            self.next_round = now + KILL_ROUND_S
            return False
        self._finish(len(left))
        return True

    def _signal_all(self, number: int) -> list[int]:
        pids = self.alive()
        # The child that has not joined its group yet is known by its pid alone.
        for pid in pids if self.pid in pids or not self._main_alive else [self.pid, *pids]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return pids

    def _finish(self, leftover: int) -> None:
        if self.told is not None:
            self.exec_told()
        for output in self.outputs:
            output.finish()
        code, number = None, None
        if self._status is not None:
            if os.WIFSIGNALED(self._status):
                number = os.WTERMSIG(self._status)
            else:
                code = os.WEXITSTATUS(self._status)
        cpu_s, _, peak_bytes = self.group.usage()
        self.record = {
            "code": code,
            "signal": number,
            "oom_kills": self.group.oom_kills(),
            "pids_hits": self.group.pids_hits(),
            "cpu_s": cpu_s,
            "peak_bytes": peak_bytes,
            "lost_bytes": sum(output.lost_bytes for output in self.outputs),
            "lost_why": next((output.lost_why for output in self.outputs if output.lost_why), ""),
            "leftover": leftover,
        }
        self.group.remove()
        self.state = ENDED
        self.next_round = self.deadline = None
        self.save()

    # --- records and usage ---

    def save(self) -> None:
        """Write the record beside the run's other files, so that it outlives the keeper."""
        if self.start_error is not None:
            self.saved = True
            return
        try:
            with open(f"{self.key}.exit.new", "w", encoding="ascii") as file:
                json.dump(self.record, file)
            os.replace(f"{self.key}.exit.new", f"{self.key}.exit")
            self.saved = True
        except FileNotFoundError:
            self.saved = True  # The sandbox is gone: nobody will ask.
        except OSError:
            self.saved = False

    def forget(self) -> bool:
        """Remove what a run that has ended keeps; return whether its control group is gone too."""
        self._unlink_exit()
        return self.group.remove()

    def _unlink_exit(self) -> None:
        for name in (f"{self.key}.exit", f"{self.key}.exit.new"):
            try:
                os.unlink(name)
            except OSError:
                pass

    def usage(self) -> tuple[float | None, int | None, int | None]:
        """Return (processor seconds, memory now, most memory so far)."""
        if self.state == ENDED:
            return self.record["cpu_s"], None, self.record["peak_bytes"]
        cpu_s, now_bytes, peak_bytes = self.group.usage()
        if cpu_s is None or now_bytes is None:
            stats = [stat for pid in self.alive() if (stat := processes.read_stat(pid)) is not None]
            cpu_s = sum(stat.cpu_s for stat in stats) if cpu_s is None else cpu_s
            now_bytes = sum(stat.mem_bytes for stat in stats) if now_bytes is None else now_bytes
        return cpu_s, now_bytes, peak_bytes


def read_exit(key: str) -> dict[str, Any] | None:
    """Return the record that an earlier keeper left; None: there is none that can be read."""
    try:
        with open(f"{key}.exit", encoding="ascii") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
