"""The second framework: always has more work than there is room, so that sharing can be seen."""

from __future__ import annotations

import uuid
from typing import Final

import anyio

from edgerm_core.client import Framework, Task, task, wasm
from edgerm_core.tasks import DisconnectPolicy, TaskState
from edgerm_demo.study import CPUS, HERE, MEM

WAITING: Final = 10
"""Tasks it keeps in the queue."""

LIMIT: Final = 800_000
"""It looks for primes up to here: some 90 ms of computing, about a second on its share of a core."""


class Rival:
    """Keeps the cluster busy until it is told to stop.

    Attributes:
        done: how many tasks have finished.
    """

    def __init__(self, framework: Framework) -> None:
        self.framework = framework
        self.tasks: list[Task] = []
        self.done = 0

    async def run(self) -> None:
        """Submit tasks so that some always wait; runs until cancelled."""
        module = (HERE / "busy.wat").read_bytes()
        async with anyio.create_task_group() as group:
            while True:
                waiting = sum(1 for t in self.tasks if t.state is TaskState.PENDING)
                for _ in range(WAITING - waiting):
                    draft = task(
                        wasm(module, LIMIT, function="busy"),
                        name=f"primes-{uuid.uuid4().hex[:6]}",
                        cpus=CPUS,
                        mem=MEM,
                        disconnect=DisconnectPolicy(lost_after_s=0.5),
                    )
                    submitted = await self.framework.submit(draft)
                    self.tasks.append(submitted)
                    group.start_soon(self._follow, submitted)
                await anyio.sleep(0.1)

    async def _follow(self, submitted: Task) -> None:
        ended = await submitted.wait()
        self.tasks.remove(submitted)
        self.done += ended.state is TaskState.FINISHED
