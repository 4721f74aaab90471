"""The executor: an asynchronous shell around runs that worker threads drive.

Guests run on stacks of their own inside the agent process, so a run costs no process and, while it
sleeps, no thread. They end with the agent.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from edgerm_core.agents import Fingerprint
from edgerm_core.config import default_data_dir
from edgerm_core.errors import ExecutorError, SpecError, TaskLost
from edgerm_core.interfaces import Executor, Sandbox, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.resources import BYTES_PER_MIB, UNIT
from edgerm_core.tasks import ExitResult, Reason
from edgerm_executor_wasm.call import plan_call
from edgerm_executor_wasm.config import WasmConfig
from edgerm_executor_wasm.fingerprint import NAME, take_fingerprint
from edgerm_executor_wasm.options import parse_options
from edgerm_executor_wasm.output import Output

if TYPE_CHECKING:
    from edgerm_executor_wasm.run import Run
    from edgerm_executor_wasm.runtime import Runtime

log = logging.getLogger(__name__)

STUCK_S: Final = 1.0
"""A stopped guest is gone at once, unless it is inside a blocking file operation. After its grace, and
at least this long, such a run counts as ended; its thread follows when the operation returns."""


class _Entry:
    """A run and who waits for it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ended = anyio.Event()
        self.result: ExitResult | None = None

    def end(self, result: ExitResult) -> None:
        if self.result is None:
            self.result = result
            self.ended.set()


class WasmExecutor(Executor):
    """Runs WebAssembly modules on wasmtime, inside the agent process."""

    name = NAME

    def __init__(self, config: WasmConfig) -> None:
        self._config = config
        self._runtime: Runtime | None = None
        self._loading = anyio.Lock()
        self._problem = ""
        self._entries: dict[str, _Entry] = {}
        self._by_run: dict[Run, _Entry] = {}
        self._ended: deque[Run] = deque()
        self._delivering = False
        self._closed = False

    async def fingerprint(self) -> Fingerprint:
        return take_fingerprint(self._problem)

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        implementation = launch.implementation
        options = parse_options(implementation.options)
        if implementation.blob is None or launch.blob_path is None:
            raise SpecError("a wasm implementation needs a module: set its blob")
        runtime = self._runtime or await self._load_runtime()
        if self._closed:
            await self.close()  # Again: it may have been called while the runtime was loaded.
            raise _stopping()
        modules = runtime.modules
        module = modules.get(implementation.blob) or await modules.load(
            implementation.blob, launch.blob_path
        )
        call = plan_call(module.functions, module.has_memory, options, implementation.args)
        if self._closed:
            raise ExecutorError(
                "the agent is stopping", reason=Reason.EXECUTOR_UNAVAILABLE, recoverable=True
            )
        key = f"{launch.task_id}.{launch.attempt}.{launch.restarts}"
        if key in self._entries:
            raise ExecutorError(f"run {key} has been started already")
        run = runtime.make_run(
            module,
            call,
            self._mem_limit_bytes(launch),
            self._cpu_share(launch),
            [launch.name, *map(str, implementation.args)],
            launch.env,
            self._preopens(launch, sandbox) if module.uses_files else (),
            Output(sandbox, call.returns_stdout),
        )
        self._entries[key] = self._by_run[run] = _Entry(run)
        runtime.workers.submit(run)
        return TaskHandle(NAME, 1, {"run": key})

    async def wait(self, handle: TaskHandle) -> ExitResult:
        """As promised by `Executor`.

        Raises:
            TaskLost: if the run has been destroyed or was another process's.
        """
        entry = self._entry(handle)
        if entry is None:
            raise _lost(handle)
        await entry.ended.wait()
        assert entry.result is not None
        return entry.result

    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        """End the run at once: a module cannot be asked. `grace_s` bounds the wait for a stuck one."""
        entry = self._entry(handle)
        if entry is not None:
            await self._end(entry, grace_s)

    async def destroy(self, handle: TaskHandle) -> None:
        entry = self._entry(handle)
        if entry is None:
            return
        if entry.result is None:
            await self._end(entry, 0.0)
        self._entries.pop(handle.data["run"], None)

    async def recover(self, handle: TaskHandle) -> TaskHandle:
        if self._entry(handle) is None:
            raise _lost(handle)
        return handle

    async def stats(self, handle: TaskHandle) -> TaskStats:
        entry = self._entry(handle)
        if entry is None:
            return TaskStats()
        # Linear memory never shrinks.
        return TaskStats(entry.run.cpu_s, entry.run.mem_bytes, entry.run.mem_bytes)

    async def close(self) -> None:
        self._closed = True
        runtime = self._runtime
        if runtime is None:
            return
        async with anyio.create_task_group() as group:
            for entry in list(self._entries.values()):
                if entry.result is None:
                    group.start_soon(self._end, entry, 0.0)
        self._runtime = None
        await anyio.to_thread.run_sync(runtime.workers.close)

    def _entry(self, handle: TaskHandle) -> _Entry | None:
        key = handle.data.get("run")
        return self._entries.get(key) if isinstance(key, str) else None

    async def _end(self, entry: _Entry, grace_s: float) -> None:
        if entry.result is None:
            assert self._runtime is not None
            self._runtime.workers.stop(entry.run)
            with anyio.move_on_after(max(grace_s, STUCK_S)):
                await entry.ended.wait()
        if entry.result is None:
            log.error("a stopped module is inside a file operation that does not return")
            message = "The module was stopped while it was inside a file operation that does not return."
            entry.end(ExitResult(ok=False, reason=Reason.KILLED_BY_REQUEST, message=message))

    async def _load_runtime(self) -> Runtime:
        async with self._loading:
            if self._runtime is None:
                if self._closed:
                    raise _stopping()
                # Workers report from their own threads, and anyio has no call for that which does
                # not make the reporting thread wait.
                loop = asyncio.get_running_loop()

                def report(runs: list[Run]) -> None:
                    self._ended.extend(runs)
                    if not self._delivering:
                        self._delivering = True
                        try:
                            loop.call_soon_threadsafe(self._deliver)
                        except RuntimeError:
                            log.debug("a module ended after the event loop")

                self._runtime = await anyio.to_thread.run_sync(self._make_runtime, report)
            return self._runtime

    def _make_runtime(self, report: Callable[[list[Run]], None]) -> Runtime:
        try:
            from edgerm_executor_wasm.runtime import Runtime
        except (ImportError, OSError, RuntimeError) as error:
            self._problem = f"wasmtime cannot be loaded on this machine: {error}"
            raise ExecutorError(self._problem, reason=Reason.EXECUTOR_UNAVAILABLE) from error
        return Runtime(self._cache_dir(), self._config.cache_mib * BYTES_PER_MIB, report)

    def _deliver(self) -> None:
        """Tell those who wait that runs have ended; one call for all that ended meanwhile."""
        self._delivering = False
        while self._ended:
            run = self._ended.popleft()
            assert run.result is not None
            self._by_run.pop(run).end(run.result)

    def _cache_dir(self) -> Path:
        if self._config.cache_dir:
            return Path(self._config.cache_dir)
        data_dir = os.environ.get("EDGERM_AGENT_DATA")
        return (Path(data_dir) if data_dir else default_data_dir("agent")) / "executor-wasm" / "cache"

    def _mem_limit_bytes(self, launch: TaskLaunch) -> int:
        milli_mib = launch.resources.scalars.get("mem")
        if milli_mib is None:
            return self._config.default_mem_mib * BYTES_PER_MIB
        return milli_mib * BYTES_PER_MIB // UNIT

    @staticmethod
    def _cpu_share(launch: TaskLaunch) -> float | None:
        milli = launch.resources.scalars.get("cpus")
        return None if milli is None else milli / UNIT

    @staticmethod
    def _preopens(launch: TaskLaunch, sandbox: Sandbox) -> list[tuple[Path, str, bool]]:
        preopens = [(path, volume.path, not volume.read_only) for volume, path in launch.volumes]
        work_dir = sandbox.work_dir
        if any(work_dir.iterdir()):
            preopens.append((work_dir, ".", True))
        return preopens


def _stopping() -> ExecutorError:
    return ExecutorError("the agent is stopping", reason=Reason.EXECUTOR_UNAVAILABLE, recoverable=True)


def _lost(handle: TaskHandle) -> TaskLost:
    name = str(handle.data.get("run", "without a name"))[:80]
    return TaskLost(f"run {name} is not in this agent process: modules end with the agent that runs them")
