"""How agents are ranked: small machines first, so that big ones stay free for big tasks."""

from __future__ import annotations

from typing import Final

from edgerm_core.resources import UNIT, Resources

MEM_PER_CPU: Final = 1024
"""MiB of memory that weigh as much as one CPU. An absolute measure, because one that is relative to the
biggest machine would change every rank when a bigger machine joins."""

ROOM_ONE: Final = 1 << 20
"""A completely free agent, in `room`."""


def capability(totals: Resources) -> int:
    """Return how big a machine is, in 1/1000 CPUs or what weighs as much, whichever is more."""
    return max(totals.scalars.get("cpus", 0), totals.scalars.get("mem", 0) // MEM_PER_CPU)


def computing_class(totals: Resources) -> int:
    """Return the power of two that the capability lies below: machines of one class are alike enough
    that `spread` chooses among them."""
    return capability(totals).bit_length()


def room(free: dict[str, int], totals: Resources) -> int:
    """Return how free an agent is by its scarcest scalar, 0 to `ROOM_ONE`."""
    return min(
        (free.get(name, 0) * ROOM_ONE // total for name, total in totals.scalars.items()), default=ROOM_ONE
    )


WORTH_CPUS: Final = UNIT // 100
WORTH_MEM: Final = 32 * UNIT
"""Least free CPUs or MiB that make an offer worth sending; Mesos has the same two minima."""


def worth_offering(free: Resources, totals: Resources) -> bool:
    """Return whether what is free would be of use to a framework that takes offers."""
    if "cpus" not in totals.scalars and "mem" not in totals.scalars:
        return bool(free)
    scalars = free.scalars
    return scalars.get("cpus", 0) >= WORTH_CPUS or scalars.get("mem", 0) >= WORTH_MEM or bool(free.devices)
