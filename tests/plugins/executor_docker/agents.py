"""Executors as the processes of one agent, or of several, would have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.executor import DockerExecutor

from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.logs import STDOUT, LogReader
from edgerm_core.testing.contracts.executor import PATIENCE_S
from edgerm_core.testing.sandboxes import DirectorySandbox

TICKS = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done"
"""Lines that differ, so that none can be missed or doubled unseen."""


class Agents:
    """Makes executors, starts runs on them, and removes at the end what is left.

    Attributes:
        base: for their directories.
        limit_bytes: size of each log ring.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.limit_bytes = 1 << 20
        self.made: list[DockerExecutor] = []
        self.handles: list[TaskHandle] = []

    def agent(self, url: str, name: str = "agent", **settings: Any) -> DockerExecutor:
        """Return an executor of the agent `name`; made again, it is that of the agent's next process."""
        self.made.append(
            DockerExecutor(DockerConfig(socket=url, state_dir=str(self.base / name), **settings))
        )
        return self.made[-1]

    def sandbox(self, run: TaskLaunch) -> DirectorySandbox:
        return DirectorySandbox(self.base / "sandboxes" / str(run.task_id), self.limit_bytes)

    async def start(self, executor: DockerExecutor, run: TaskLaunch) -> TaskHandle:
        with anyio.fail_after(PATIENCE_S):
            handle = await executor.start(run, self.sandbox(run))
        self.handles.append(handle)
        return handle

    def printed(self, run: TaskLaunch) -> bytes:
        """Return what the ring of standard output holds."""
        reader = LogReader(self.sandbox(run).log_dir, STDOUT)
        first, end = reader.bounds()
        pieces = []
        while first < end:
            start, data = reader.read(first, end - first)
            if not data:
                break
            pieces.append(data)
            first = start + len(data)
        return b"".join(pieces)

    def ticks(self, run: TaskLaunch) -> list[int]:
        """Return the numbers that `TICKS` printed; a first or last line cut short is left out."""
        lines = self.printed(run).split(b"\n")[:-1]
        return [int(line[5:]) for line in lines if line.startswith(b"tick ")]

    async def close(self) -> None:
        """Remove all runs and close all executors."""
        for handle in self.handles:
            with anyio.fail_after(PATIENCE_S):
                await self.made[-1].destroy(handle)
        for executor in self.made:
            with anyio.fail_after(PATIENCE_S):
                await executor.close()
