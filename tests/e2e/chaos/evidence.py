"""What the tasks themselves have left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

ENVIRONMENT = re.compile(rb"(EDGERM_ATTEMPT|EDGERM_RESTARTS|EDGERM_AGENT_NAME)=([^\0]*)\0")


class Line(msgspec.Struct, frozen=True):
    """One line of one run.

    Attributes:
        what: `start`, `end-<code>`, `twice` (another run of the task lives on the same agent),
            `beside-<agent>` (one lives on that agent).
        at: Unix time in seconds; 0 where the task could not tell.
    """

    what: str
    attempt: int
    restarts: int
    agent: str
    boot: str = ""
    at: float = 0.0

    @property
    def run(self) -> tuple[int, int]:
        """What orders the task's runs."""
        return self.attempt, self.restarts


def read_evidence(directory: Path) -> dict[str, list[Line]]:
    """Return what process tasks have written, by `<key>.<index>`, in the order of writing."""
    found: dict[str, list[Line]] = {}
    for path in directory.glob("*.says"):
        lines = []
        for text in path.read_text().splitlines():
            what, attempt, restarts, agent, boot, at = text.split()
            lines.append(Line(what, int(attempt), int(restarts), agent, boot, float(at)))
        found[path.name.removesuffix(".says")] = lines
    return found


def read_volumes(data_dir: Path, framework: str) -> Iterator[tuple[str, Line]]:
    """Yield what WASM tasks of a framework have written on one agent, by `<key>.<index>`, in order."""
    for path in sorted((data_dir / "volumes" / framework).glob("*/log")):
        for record in path.read_bytes().splitlines():
            what = record.split(None, 1)[0].decode()
            env = {name.decode(): value.decode() for name, value in ENVIRONMENT.findall(record)}
            attempt, restarts = int(env["EDGERM_ATTEMPT"]), int(env["EDGERM_RESTARTS"])
            what = "end-0" if what == "end" else what
            yield f"{path.parent.name}.0", Line(what, attempt, restarts, env["EDGERM_AGENT_NAME"])
