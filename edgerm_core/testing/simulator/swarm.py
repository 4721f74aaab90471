"""What a seed may draw from.

Swarm testing (Groce et al., ISSTA 2012): each seed enables a random part of the faults, at random rates,
on a cluster of random size. A plan in which everything happens all the time finds less, because faults
hide each other's consequences.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Kind = Literal[
    "cut", "slow", "reset", "nat", "kill-agent", "power", "reboot", "agent-disk", "sick", "unplug", "clock",
    "kill-master", "stop-master", "master-disk", "drain", "forget", "operator", "take-over",
    "framework-dies", "misbehave", "again", "kill-tasks", "leave", "suppress",
]  # fmt: skip

KINDS: Final[tuple[Kind, ...]] = Kind.__args__  # type: ignore[attr-defined]

GatewayKind = Literal[
    "uplink-cut", "uplink-reset", "kill-gateway", "gateway-power", "gateway-reboot", "gateway-disk",
    "gateway-clock", "gateway-forgotten", "move", "sleep", "radio-reset", "device-restart",
]  # fmt: skip

GATEWAY_KINDS: Final[tuple[GatewayKind, ...]] = GatewayKind.__args__  # type: ignore[attr-defined]


class Swarm(msgspec.Struct, frozen=True):
    """What a seed may draw from; tests of one thing narrow it down.

    Attributes:
        kinds: of faults and disturbances; each seed enables a random part of them.
        all_kinds: enable all of `kinds` in each seed.
        agents, frameworks, submissions: fewest and most of them.
        faults_s: shortest and longest time of faults.
        pace_s: fewest and most seconds between two disturbances of one kind.
        scheduler: which one; empty: drawn.
        gateways: fewest and most of them; half of the seeds that may have none have none.
        gateway_kinds: of faults and disturbances of gateways and their devices, as `kinds`.
    """

    kinds: tuple[Kind, ...] = KINDS
    all_kinds: bool = False
    agents: tuple[int, int] = (1, 5)
    frameworks: tuple[int, int] = (1, 3)
    submissions: tuple[int, int] = (1, 14)
    faults_s: tuple[float, float] = (60.0, 1800.0)
    pace_s: tuple[float, float] = (15.0, 600.0)
    scheduler: str = ""
    gateways: tuple[int, int] = (0, 2)
    gateway_kinds: tuple[GatewayKind, ...] = GATEWAY_KINDS


EVERYTHING: Final = Swarm()
