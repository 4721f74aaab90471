"""What goes on between the calls of core: copying output, listening to the engine, fetching images."""

from __future__ import annotations

# Plain asyncio: an executor is made by a plain function and has no task group to start these in.
import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """Coroutines that belong to one executor and end with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start it. What it raises is logged and harms nothing else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("executor docker: %s failed", task.get_coro(), exc_info=error)

    async def close(self) -> None:
        """Cancel all and wait for their ends. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
