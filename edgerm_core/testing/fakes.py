"""Stand-ins for tests of what stands above them, each named for what it does.

`FakeExecutor` runs nothing: a test says what each run does, and looks at what it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import msgspec

from edgerm_core.agents import Fingerprint
from edgerm_core.errors import TaskLost
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Executor, Sandbox, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.tasks import ExitResult, Reason

RunKey = tuple[TaskId, int, int]
"""Task id, attempt, restarts."""

WELL = ExitResult(True, Reason.EXITED, exit_code=0)


class Script(msgspec.Struct):
    """What a run does.

    Attributes:
        exits: how it ends as soon as it has started; None: it runs until told (`FakeExecutor.exit`).
        start_hangs: `start` waits until cancelled or until `FakeExecutor.go_on`.
        reports: what `start` says about its progress, before it hangs or ends.
        start_error: what `start` raises.
        wait_error: what `wait` raises.
        deaf: `stop` never returns and ends nothing.
    """

    exits: ExitResult | None = None
    start_hangs: bool = False
    reports: tuple[str, ...] = ()
    start_error: Exception | None = None
    wait_error: Exception | None = None
    deaf: bool = False


class FakeExecutor(Executor):
    """Does with each run what its script says; runs without one end well at once.

    Attributes:
        script: given a launch, returns its script. Replace it.
        fingerprinted: what `fingerprint` returns. Replace it.
        started: every launch that `start` was called with, in order.
        running: runs that have started and not been destroyed.
        stopped: handles and grace periods that `stop` was called with.
        sandboxes: the sandbox of each run.
        swept: what `sweep` was called with.
        usage: what `stats` returns. Replace it.
    """

    def __init__(
        self, name: str = "fake", *, survivors: dict[RunKey, ExitResult | None] | None = None
    ) -> None:
        """Parameters:
        survivors: runs of an earlier executor object that `recover` finds, with how they ended or None.
        """
        self.name = name
        self.script: Callable[[TaskLaunch], Script] = lambda launch: Script(exits=WELL)
        self.fingerprinted = Fingerprint(name, "1", capabilities={"survives_agent_restart": True})
        self.started: list[TaskLaunch] = []
        self.stopped: list[tuple[TaskHandle, float]] = []
        self.running: set[RunKey] = set()
        self.sandboxes: dict[RunKey, Sandbox] = {}
        self.closed = False
        self.swept: list[list[TaskHandle]] = []
        self.usage = TaskStats()
        self._survivors = dict(survivors or {})
        self._scripts: dict[RunKey, Script] = {}
        self._results: dict[RunKey, ExitResult] = {}
        self._changed = anyio.Event()

    # --- for the test -------------------------------------------------------------------------

    def exit(self, task_id: int, result: ExitResult = WELL, attempt: int = 1, restarts: int = 0) -> None:
        """End a run."""
        self._results[TaskId(task_id), attempt, restarts] = result
        self._notify()

    def go_on(self) -> None:
        """Let every `start` that hangs go on."""
        for script in self._scripts.values():
            script.start_hangs = False
        self._notify()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, which depends on this executor, holds."""
        while not condition():
            await self._changed.wait()

    # --- the interface ------------------------------------------------------------------------

    async def fingerprint(self) -> Fingerprint:
        """See `Executor.fingerprint`."""
        return self.fingerprinted

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        """See `Executor.start`."""
        key = (launch.task_id, launch.attempt, launch.restarts)
        script = self._scripts[key] = self.script(launch)
        self.started.append(launch)
        self.sandboxes[key] = sandbox
        self._notify()
        for text in script.reports:
            sandbox.report(text)
        while script.start_hangs:
            await self._changed.wait()
        if script.start_error is not None:
            raise script.start_error
        self.running.add(key)
        if script.exits is not None:
            self._results[key] = script.exits
        self._notify()
        return TaskHandle(self.name, data={"key": list(key)})

    async def wait(self, handle: TaskHandle) -> ExitResult:
        """See `Executor.wait`."""
        key = _key(handle)
        script = self._scripts.get(key, Script())
        if script.wait_error is not None:
            raise script.wait_error
        while key not in self._results:
            await self._changed.wait()
        return self._results[key]

    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        """See `Executor.stop`."""
        self.stopped.append((handle, grace_s))
        key = _key(handle)
        self._notify()
        while self._scripts.get(key, Script()).deaf:
            await self._changed.wait()
        self._results.setdefault(key, ExitResult(False, Reason.SIGNALED, signal=15))
        self._notify()

    async def destroy(self, handle: TaskHandle) -> None:
        """See `Executor.destroy`."""
        self.running.discard(_key(handle))
        self._notify()

    async def recover(self, handle: TaskHandle) -> TaskHandle:
        """See `Executor.recover`."""
        key = _key(handle)
        if key not in self._survivors:
            raise TaskLost(f"t{key[0]} is not running any more")
        self.running.add(key)
        if (result := self._survivors[key]) is not None:
            self._results[key] = result
        self._notify()
        return handle

    async def sweep(self, kept: Sequence[TaskHandle]) -> None:
        """See `Executor.sweep`."""
        self.swept.append(list(kept))

    async def stats(self, handle: TaskHandle) -> TaskStats:
        """See `Executor.stats`."""
        return self.usage

    async def close(self) -> None:
        """See `Executor.close`."""
        self.closed = True

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _key(handle: TaskHandle) -> RunKey:
    task_id, attempt, restarts = handle.data["key"]
    return TaskId(task_id), attempt, restarts
