"""The first framework: maps a WASM analysis over the weeks of the year, reduces with a process task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import anyio
import msgspec

from edgerm_core.client import Framework, Task, process, task, wasm
from edgerm_core.tasks import DisconnectPolicy
from edgerm_demo.weather import Finding, Part

HERE: Final = Path(__file__).parent
CPUS: Final = 0.04
MEM: Final = "4MiB"


class Study:
    """The map: one WASM task per week, on whatever agent there is room.

    Attributes:
        tasks: one per part, in order.
        findings: what came back so far, by part.
    """

    def __init__(self, framework: Framework, parts: list[Part]) -> None:
        self.framework = framework
        self.parts = parts
        self.tasks: list[Task] = []
        self.findings: dict[int, Finding] = {}

    async def map(self) -> None:
        """Submit all parts and collect their findings."""
        module = (HERE / "analyse.wat").read_bytes()
        drafts = [
            task(
                wasm(module, function="analyse", abi="bytes", input=part.encode()),
                name=f"week-{part.index + 1:02d}",
                cpus=CPUS,
                mem=MEM,
                disconnect=DisconnectPolicy(lost_after_s=0.5),
            )
            for part in self.parts
        ]
        self.tasks = await self.framework.submit_many(drafts)
        async with anyio.create_task_group() as group:
            for part, submitted in zip(self.parts, self.tasks, strict=True):
                group.start_soon(self._collect, part, submitted)

    async def _collect(self, part: Part, submitted: Task) -> None:
        self.findings[part.index] = Finding.decode(await submitted.result())

    async def reduce(self) -> tuple[str, dict[str, int]]:
        """Bring the findings together on the gateway; return (what it printed, the year's figures)."""
        weeks = [msgspec.to_builtins(self.findings[part.index]) for part in self.parts]
        reducer = await self.framework.submit(
            process(sys.executable, "reduce.py"),
            name="reduce",
            cpus=CPUS,
            mem="64MiB",
            constraints=["class==gateway"],
            files={
                "reduce.py": (HERE / "reduce.py").read_bytes(),
                "findings.json": json.dumps(weeks).encode(),
            },
        )
        result = await reducer.result()
        printed = b""
        async for piece in reducer.logs():
            printed += piece
        return printed.decode(), json.loads(result)
