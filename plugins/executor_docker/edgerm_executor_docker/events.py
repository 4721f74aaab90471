"""What engines tell about containers, and how they describe them. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from edgerm_executor_docker.exits import ExitRecord
from edgerm_executor_docker.request import LABEL_AGENT

ENDED: Final = frozenset({"exited", "dead", "removing", "stopped"})
"""States of a container that has run and runs no more; `stopped` is Podman's."""


class Happening(msgspec.Struct, frozen=True):
    """One event of a container.

    Attributes:
        container: its id.
        kind: it ended, or the kernel killed something in it for memory.
        code: its exit code, if the engine tells.
    """

    container: str
    kind: Literal["die", "oom"]
    code: int | None = None


def events_query(agent: str) -> dict[str, str]:
    """Return the query for the events of one agent's containers."""
    # Podman tells of `die`, but filters by its own name for it.
    filters = {"type": ["container"], "event": ["die", "died", "oom"], **label_filter(agent)}
    return {"filters": json.dumps(filters)}


def label_filter(agent: str) -> dict[str, list[str]]:
    """Return the filter for one agent's containers."""
    return {"label": [f"{LABEL_AGENT}={agent}"]}


def read_event(raw: Mapping[str, Any]) -> Happening | None:
    """Read one event; None: of no interest."""
    action = raw.get("Action") or raw.get("status")
    actor = raw.get("Actor")
    if action not in ("die", "oom") or not isinstance(actor, dict):
        return None
    container = actor.get("ID") or raw.get("id")
    if not isinstance(container, str):
        return None
    code = str((actor.get("Attributes") or {}).get("exitCode", ""))
    return Happening(container, action, int(code) if code.isdigit() else None)


class ContainerState(msgspec.Struct, frozen=True):
    """How a container is.

    Attributes:
        status: the engine's word: `created`, `running`, `exited`…
        code: its exit code, once it has ended.
        out_of_memory: whether the kernel killed it for memory.
        problem: what the engine says went wrong.
        pid: of its first process; 0: none.
        agent: whose it is, by its label.
        stop_signal, user: as its options or its image have them.
    """

    status: str
    code: int
    out_of_memory: bool
    problem: str
    pid: int
    agent: str
    stop_signal: str
    user: str

    @property
    def ended(self) -> bool:
        """Whether it has run and runs no more."""
        return self.status in ENDED

    @property
    def record(self) -> ExitRecord:
        """How it ended."""
        return ExitRecord(self.code, self.out_of_memory, problem=self.problem)


def read_state(inspected: Mapping[str, Any]) -> ContainerState:
    """Read the answer to `GET /containers/{id}/json`."""
    state = inspected.get("State") or {}
    config = inspected.get("Config") or {}
    return ContainerState(
        status=str(state.get("Status", "")),
        code=int(state.get("ExitCode") or 0),
        out_of_memory=bool(state.get("OOMKilled")),
        problem=str(state.get("Error") or ""),
        pid=int(state.get("Pid") or 0),
        agent=str((config.get("Labels") or {}).get(LABEL_AGENT, "")),
        stop_signal=str(config.get("StopSignal") or ""),
        user=str(config.get("User") or ""),
    )
