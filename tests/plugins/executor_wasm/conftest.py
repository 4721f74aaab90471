"""A rig for runs of the modules beside this file, which are compiled from their text here."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import wasmtime
from edgerm_executor_wasm.config import WasmConfig
from edgerm_executor_wasm.executor import WasmExecutor

from edgerm_core.ids import TaskId, blob_id
from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.logs import STDOUT, LogReader
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, Implementation, Volume
from edgerm_core.testing.sandboxes import DirectorySandbox

MODULES = Path(__file__).parent / "modules"
PATIENCE_S = 30.0


class Rig:
    """Makes launches, starts them on one executor, and cleans up."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.executor = WasmExecutor(self.config())
        self._ids = itertools.count(1)
        self._compiled: dict[str, bytes] = {}
        self._handles: list[TaskHandle] = []
        self._sandboxes: dict[int, DirectorySandbox] = {}

    def config(self) -> WasmConfig:
        return WasmConfig(cache_dir=str(self.base / "cache"))

    def binary(self, source: str) -> bytes:
        """Compile the text of a module, or the file of that name in `modules`."""
        if source not in self._compiled:
            text = source if source.startswith("(") else (MODULES / f"{source}.wat").read_text()
            self._compiled[source] = bytes(wasmtime.wat2wasm(text))
        return self._compiled[source]

    def launch(
        self,
        source: str | bytes,
        function: str = "",
        *args: str | int | float,
        resources: str = "",
        env: dict[str, str] | None = None,
        volumes: tuple[tuple[Volume, Path], ...] = (),
        **options: Any,
    ) -> TaskLaunch:
        """Return a launch with a task id of its own."""
        data = source if isinstance(source, bytes) else self.binary(source)
        blob = blob_id(data)
        path = self.base / "blobs" / blob.hex()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        if function:
            options["function"] = function
        task_id = TaskId(next(self._ids))
        return TaskLaunch(
            task_id=task_id,
            attempt=1,
            restarts=0,
            name=f"task-{task_id}",
            implementation=Implementation("wasm", blob, args, options),
            blob_path=path,
            resources=Resources.parse(resources),
            env=env or {},
            volumes=volumes,
        )

    def sandbox(self, launch: TaskLaunch, log_limit_bytes: int = 1 << 20) -> DirectorySandbox:
        if launch.task_id not in self._sandboxes:
            path = self.sandbox_path(launch)
            self._sandboxes[launch.task_id] = DirectorySandbox(path, log_limit_bytes)
        return self._sandboxes[launch.task_id]

    def sandbox_path(self, launch: TaskLaunch) -> Path:
        return self.base / "sandboxes" / str(launch.task_id)

    async def start(self, launch: TaskLaunch) -> TaskHandle:
        with anyio.fail_after(PATIENCE_S):
            handle = await self.executor.start(launch, self.sandbox(launch))
        self._handles.append(handle)
        return handle

    async def wait(self, handle: TaskHandle) -> ExitResult:
        with anyio.fail_after(PATIENCE_S):
            return await self.executor.wait(handle)

    async def run(self, launch: TaskLaunch) -> ExitResult:
        return await self.wait(await self.start(launch))

    def printed(self, launch: TaskLaunch, stream: str = STDOUT) -> bytes:
        return LogReader(self.sandbox(launch).log_dir, stream).read(0, 1 << 20)[1]

    async def new_executor(self, config: WasmConfig | None = None) -> None:
        """Go on with another executor on the same directories."""
        await self.executor.close()
        self.executor = WasmExecutor(config or self.config())

    def compiled(self) -> int:
        """Return how many modules this executor has compiled itself."""
        runtime = self.executor._runtime
        return 0 if runtime is None else runtime.modules.compiled

    async def close(self) -> None:
        with anyio.fail_after(PATIENCE_S):
            for handle in self._handles:
                await self.executor.destroy(handle)
            await self.executor.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.close()


@pytest.fixture
def make_rig(tmp_path: Path) -> Callable[[], Rig]:
    """For suites that own their executors: only the launches are used."""
    return lambda: Rig(tmp_path)
