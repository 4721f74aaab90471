"""Starts runs on one executor, for tests of what a task gets and is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.executor import DockerExecutor

from edgerm_core.errors import ExecutorError, SpecError
from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.logs import STDERR, STDOUT, LogReader
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.contracts.executor import PATIENCE_S
from edgerm_core.testing.sandboxes import DirectorySandbox

from .workloads import living, shell


class Runner:
    """Starts runs on one executor, and removes what it started."""

    def __init__(self, url: str, base: Path) -> None:
        self.base = base
        self.url = url
        self.executor = self.make()
        self.handles: list[TaskHandle] = []

    def make(self, **settings: Any) -> DockerExecutor:
        return DockerExecutor(DockerConfig(socket=self.url, state_dir=str(self.base / "state"), **settings))

    def configure(self, **settings: Any) -> None:
        self.executor = self.make(**settings)

    def sandbox(self, run: TaskLaunch) -> DirectorySandbox:
        return DirectorySandbox(self.base / "sandboxes" / str(run.task_id))

    async def start(self, run: TaskLaunch) -> TaskHandle:
        with anyio.fail_after(PATIENCE_S):
            handle = await self.executor.start(run, self.sandbox(run))
        self.handles.append(handle)
        return handle

    async def to_end(self, run: TaskLaunch) -> ExitResult:
        handle = await self.start(run)
        with anyio.fail_after(PATIENCE_S):
            return await self.executor.wait(handle)

    async def says(self, text: str, **options: Any) -> str:
        """Run a shell text, which must end well; return what it printed."""
        run = shell(text, **options)
        result = await self.to_end(run)
        assert result.ok, (result, self.printed(run), self.printed(run, STDERR))
        return self.printed(run)

    def printed(self, run: TaskLaunch, stream: str = STDOUT) -> str:
        reader = LogReader(self.sandbox(run).log_dir, stream)
        first, end = reader.bounds()
        return reader.read(first, end - first)[1].decode().strip()

    async def refused(self, run: TaskLaunch) -> str:
        with pytest.raises((SpecError, ExecutorError)) as caught:
            await self.start(run)
        assert not living(run)
        if isinstance(caught.value, ExecutorError):
            assert caught.value.reason == Reason.LAUNCH_FAILED
        return str(caught.value)

    async def close(self) -> None:
        for handle in self.handles:
            with anyio.fail_after(PATIENCE_S):
                await self.executor.destroy(handle)
        with anyio.fail_after(PATIENCE_S):
            await self.executor.close()
