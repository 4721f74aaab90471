"""The shortest plan that still fails in the same way: delta debugging on the plan's actions.

Zeller and Hildebrandt's ddmin (IEEE TSE 2002): leave out halves, then quarters, and so on, and keep what
still fails. Each try is a whole run; since luck comes in named streams, what is left out changes little
else. What is left at the end can be left out nowhere without the failure going away.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edgerm_core.testing.simulator.plan import Plan

SHRINK_S: Final = 120.0
"""Longest time that shrinking may take; the shortest plan found until then counts."""


def kind_of(failure: str) -> str:
    """Return what two failures of the same kind have in common: their words without names and numbers."""
    return re.sub(r"\[[^\]]*\]|[0-9.+]+|'[^']*'", "#", failure.split("\n")[0])[:60]


def with_actions(plan: Plan, kept: Sequence[int]) -> Plan:
    """Return the plan with only those of its actions, by index."""
    return msgspec.structs.replace(plan, actions=tuple(plan.actions[index] for index in kept))


def shrink(
    plan: Plan,
    fails: Callable[[Plan], bool],
    *,
    seconds: float = SHRINK_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[int]:
    """Return the indices of a least set of actions with which `fails(plan)` still holds.

    Parameters:
        fails: whether a plan fails in the way that matters. It holds for `plan` itself.
        seconds: after which the best so far is returned.
    """
    end = clock() + seconds
    kept = list(range(len(plan.actions)))
    parts = 2
    while len(kept) >= 2 and clock() < end:
        size = max(1, len(kept) // parts)
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            if fails(with_actions(plan, fewer)):
                kept = fewer
                parts = max(2, parts - 1)
                break
            if clock() >= end:
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), parts * 2)
    return kept
