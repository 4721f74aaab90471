"""Frameworks: applications that submit tasks or take offers, and which state may follow which."""

from __future__ import annotations

import enum
from fractions import Fraction
from typing import Final

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.ids import FrameworkId, check_name, check_role


class FrameworkState(enum.IntEnum):
    """Where a framework stands."""

    CONNECTED = 1
    DISCONNECTED = 2
    """No session. Its tasks run on; after `failover_timeout_s`, if it set one, it is removed."""
    REMOVED = 3
    """Torn down: its tasks are killed. Final."""


_S = FrameworkState
TRANSITIONS: Final[dict[FrameworkState, frozenset[FrameworkState]]] = {
    _S.CONNECTED: frozenset({_S.DISCONNECTED, _S.REMOVED}),
    _S.DISCONNECTED: frozenset({_S.CONNECTED, _S.REMOVED}),
    _S.REMOVED: frozenset(),
}

MAX_WEIGHT: Final = 1_000_000


class FrameworkInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a framework says about itself.

    Attributes:
        id: chosen by the framework; registering again with it is a failover, not a second framework.
        name: for people.
        weight: its part in fair sharing, in 1/1000: 2000 is entitled to twice the share of 1000.
        role: where it stands in hierarchical sharing, such as `lab/sensing`; empty: on its own.
        failover_timeout_s: how long it may stay away before its tasks are killed; None: for ever.
            Mesos's default is 0; on links that drop, forgetting a framework at once would be the
            outage that the operator wanted to survive.
        offers: whether it takes offers rather than (or besides) having its tasks placed.
    """

    id: FrameworkId
    name: str = ""
    weight: int = 1000
    role: str = ""
    failover_timeout_s: float | None = None
    offers: bool = False

    @property
    def weight_fraction(self) -> Fraction:
        """The weight as an exact number."""
        return Fraction(self.weight, 1000)


def check_framework(info: FrameworkInfo) -> None:
    """Check what a framework says about itself.

    Raises:
        SpecError: naming the field and what was expected.
    """
    check_name(info.id, "framework id")
    if info.name:
        check_name(info.name, "framework name")
    if info.role:
        check_role(info.role)
    if not 1 <= info.weight <= MAX_WEIGHT * 1000:
        raise SpecError(f"framework {info.id}: weight must be 0.001 to {MAX_WEIGHT}")
    timeout = info.failover_timeout_s
    if timeout is not None and not 0 <= timeout <= 10 * 365 * 86_400:
        raise SpecError(f"framework {info.id}: failover_timeout_s must be 0 s to ten years")
