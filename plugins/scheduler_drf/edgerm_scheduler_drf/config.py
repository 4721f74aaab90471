"""The section `[scheduler.drf]`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, Literal

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.frameworks import MAX_WEIGHT
from edgerm_core.ids import check_role

MAX_DECISIONS: Final = 2_000
"""Decisions of one call: about 50 ms, so that heartbeats are not late behind a flood of tasks."""

RESERVE_AFTER_S: Final = 60.0
"""A task that has fitted nowhere for this long, while others were placed, gets an agent set aside."""

RESERVE_FOR_S: Final = 600.0
"""How long an agent is set aside at first; doubles with every further try for the same task."""

MAX_RESERVATIONS: Final = 16
"""Agents set aside at the same time: what the whole cluster may lose to big tasks that wait."""


class DrfConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How resources are shared and tasks placed.

    Attributes:
        exclude: resources that fairness does not look at; devices as `device/<type>`.
        role_weights: role path to weight, such as `{"lab" = 2, "lab/sensing" = "0.5"}`; default 1.
        strategy: `pack` fills one agent after the other, `spread` takes the least loaded one.
        max_decisions: per call; the master calls again while there are any.
        reserve_after_s: a task that has fitted nowhere for this long, while others were placed, gets an
            agent set aside.
        reserve_for_s: how long at first; doubles with every further try for the same task.
        max_reservations: agents set aside at the same time; 0: none.
    """

    exclude: tuple[str, ...] = ()
    role_weights: dict[str, int | float | str] = {}
    strategy: Literal["pack", "spread"] = "pack"
    max_decisions: int = MAX_DECISIONS
    reserve_after_s: float = RESERVE_AFTER_S
    reserve_for_s: float = RESERVE_FOR_S
    max_reservations: int = MAX_RESERVATIONS

    def __post_init__(self) -> None:
        if not 1 <= self.max_decisions <= 1_000_000:
            raise ValueError("max_decisions must be 1 to 1000000")
        if not 0 <= self.reserve_after_s <= 86_400 * 365:
            raise ValueError("reserve_after_s must be 0 s to a year")
        if not 1 <= self.reserve_for_s <= 86_400 * 365:
            raise ValueError("reserve_for_s must be 1 s to a year")
        if not 0 <= self.max_reservations <= 10_000:
            raise ValueError("max_reservations must be 0 to 10000")
        self.weights()

    def weights(self) -> dict[str, Fraction]:
        """Return `role_weights` as exact numbers: 0.1 is a tenth and not the float next to it."""
        return {role: _weight(role, value) for role, value in self.role_weights.items()}


def _weight(role: str, value: int | float | str) -> Fraction:
    try:
        check_role(role)
        number = Decimal(str(value))
    except SpecError as error:
        raise ValueError(f"role_weights: {error}") from error
    except InvalidOperation:
        raise ValueError(f"role_weights: {value!r} of {role} is not a number") from None
    if not (number.is_finite() and Decimal("0.001") <= number <= MAX_WEIGHT):
        raise ValueError(f"role_weights: {value} of {role} must be 0.001 to {MAX_WEIGHT}")
    return Fraction(number)
