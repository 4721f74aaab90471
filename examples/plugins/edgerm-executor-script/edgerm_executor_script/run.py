"""One run: a process, its output, and its time limit.

Everything happens in callbacks of the event loop, which are told when there is output, when the process
has ended and when its time is up. asyncio, because anyio has no callbacks, and an executor is not given
a task group to wait in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress

import anyio
from edgerm_core.interfaces import Sandbox
from edgerm_core.logs import STDERR, STDOUT, LogWriter
from edgerm_core.tasks import ExitResult, Reason

from edgerm_executor_script import marks

CHUNK_BYTES = 1 << 16
"""Read at once from a run's output; as much as a pipe holds."""

MAX_DRAIN_CHUNKS = 16
"""Of what a run has left in a pipe at its end; a process that escaped could fill it for ever."""

SWEEP_ROUNDS = 200
SWEEP_PAUSE_S = 0.01
"""So often, and with such pauses, processes are looked for that are to be ended: two seconds at least."""


class Run:
    """A process that has just been started, with its output in pipes.

    Attributes:
        mark: what its processes have in their environment.
        ended: set when the script has ended; what it started may still have to be.
        result: how it ended, then.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        mark: str,
        sandbox: Sandbox,
        time_limit_s: float,
        kill_grace_s: float,
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.mark = mark
        self.ended = anyio.Event()
        self.result = ExitResult(False, Reason.SIGNALED)
        self._process = process
        self._time_limit_s = time_limit_s
        self._kill_grace_s = kill_grace_s
        self._time_is_up = False
        self._loop = asyncio.get_running_loop()
        self._logs = {
            process.stdout.fileno(): LogWriter(sandbox.log_dir, STDOUT, sandbox.log_limit_bytes),
            process.stderr.fileno(): LogWriter(sandbox.log_dir, STDERR, sandbox.log_limit_bytes),
        }
        for fd in self._logs:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read, fd)
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._end)
        self._timer = self._loop.call_later(time_limit_s, self._on_time_limit)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the script and all in its session that have not left it."""
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _on_time_limit(self) -> None:
        self._time_is_up = True
        self.signal(signal.SIGTERM)
        self._timer = self._loop.call_later(self._kill_grace_s, self.signal, signal.SIGKILL)

    def _read(self, fd: int) -> bool:
        """Keep what has been printed; return whether there may be more."""
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
            return False
        with suppress(OSError):  # The disk is full: the run goes on, its output is lost.
            self._logs[fd].write(data)
        return True

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for fd, writer in self._logs.items():
            for _ in range(MAX_DRAIN_CHUNKS):
                if not self._read(fd):
                    break
            self._loop.remove_reader(fd)
            writer.close()
        with self._process:  # Closes the pipes.
            code = self._process.wait()
        self.result = exit_result(code, self._time_limit_s if self._time_is_up else None)
        self.ended.set()


def exit_result(code: int, exceeded_s: float | None) -> ExitResult:
    """Return how a script ended.

    Parameters:
        code: as subprocess has it: negative where a signal ended it.
        exceeded_s: the time limit, if that was over.
    """
    exit_code, number = (code, None) if code >= 0 else (None, -code)
    if exceeded_s is not None:
        text = f"it ran longer than its time limit of {exceeded_s:g} s"
        return ExitResult(False, Reason.TIME_LIMIT, text, exit_code, number)
    if code == 0:
        return ExitResult(True, Reason.EXITED, exit_code=0)
    if number is None:
        return ExitResult(False, Reason.EXIT_CODE, f"exit code {code}", exit_code)
    return ExitResult(False, Reason.SIGNALED, f"ended by {signal.Signals(number).name}", signal=number)


async def end_marked(prefix: str, but: tuple[str, ...] = ()) -> bool:
    """End all processes with such a mark; return whether none is left. Looks again, as they may fork."""
    for _ in range(SWEEP_ROUNDS):
        pids = await anyio.to_thread.run_sync(marks.marked, prefix, but)
        if not pids:
            return True
        marks.send(signal.SIGKILL, pids)
        await anyio.sleep(SWEEP_PAUSE_S)
    return False
