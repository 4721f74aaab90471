"""Agents: what one says about itself, and which state may follow which."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from edgerm_core.attributes import Attributes
from edgerm_core.errors import SpecError
from edgerm_core.ids import AgentId
from edgerm_core.resources import Device, Resources
from edgerm_core.values import NOT_PLAIN, Count, Word, is_plain

UNLIMITED_TASKS: Final = 1 << 31
"""How many tasks an agent takes that does not say: more than fit into its memory."""


class AgentState(enum.IntEnum):
    """Where an agent stands, as the master sees it."""

    RECOVERING = 1
    """Known from the records of a restarted master; has not come back yet."""
    READY = 2
    """Keeps its lease; gets tasks."""
    DRAINING = 3
    """Keeps its lease; gets no new tasks, and its running ones are moved away or end."""
    UNREACHABLE = 4
    """Missed its lease. Its tasks are UNREACHABLE with it."""
    GONE = 5
    """Declared gone by the operator or forgotten after `RETAIN_AGENT_S`. Final; its id may come anew."""


_S = AgentState
TRANSITIONS: Final[dict[AgentState, frozenset[AgentState]]] = {
    _S.RECOVERING: frozenset({_S.READY, _S.DRAINING, _S.UNREACHABLE, _S.GONE}),
    _S.READY: frozenset({_S.DRAINING, _S.UNREACHABLE, _S.GONE}),
    _S.DRAINING: frozenset({_S.READY, _S.UNREACHABLE, _S.GONE}),
    _S.UNREACHABLE: frozenset({_S.READY, _S.DRAINING, _S.GONE}),
    _S.GONE: frozenset(),
}


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """What an executor says about itself on this machine.

    Attributes:
        name: the executor's name, which implementations refer to.
        version: of the runtime behind it, such as `wasmtime 50.0.1`.
        healthy: whether tasks can be started now.
        problem: when not healthy: one sentence that says why and what to do.
        capabilities: what it really enforces or offers here, such as
            `{"mem_limit": True, "cpu_limit": False, "survives_agent_restart": True}`.
        attributes: facts for constraints; the agent publishes them as `executor.<name>.<key>`.
    """

    name: Word
    version: str = ""
    healthy: bool = True
    problem: str = ""
    capabilities: dict[str, bool] = {}
    attributes: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not is_plain(self.attributes):
            raise SpecError(f"attributes of executor {self.name}: {NOT_PLAIN}")


class AgentInfo(msgspec.Struct, frozen=True, array_like=True):
    """What an agent says about itself.

    Attributes:
        id: its identity, kept in its data directory.
        name: for people; the host name unless the config says otherwise.
        totals: what it offers: detected, capped by its config, minus its reserve.
        attributes: facts for constraints.
        devices: instances that drivers have found.
        executors: fingerprints of its executors.
        max_tasks: how many tasks it takes at the same time, whatever they ask for; 0: it does not say.
    """

    id: AgentId
    name: str = ""
    totals: Resources = Resources()
    attributes: Attributes = {}
    devices: tuple[Device, ...] = ()
    executors: tuple[Fingerprint, ...] = ()
    max_tasks: Count = 0
