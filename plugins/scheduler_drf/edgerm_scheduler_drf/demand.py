"""Demands: tasks that ask for the same thing are placed alike, so they are looked at as one.

A demand keeps values only (what is asked for), nothing of the snapshot it was first seen in.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from typing import Final

from edgerm_core.feasibility import launch_bytes
from edgerm_core.ids import AgentId, FrameworkId
from edgerm_core.interfaces import TaskView
from edgerm_core.tasks import TaskSpec

TASKS: Final = "/tasks"
"""Column of the index that says how many more tasks an agent takes; no resource can be called so."""

_numbers: Iterator[int] = itertools.count()


class MatchKey:
    """What decides which agents suit: equal for equal executors, constraints, preferences and launch size.

    Attributes:
        spec: of any task with this key.
    """

    __slots__ = ("_hash", "_parts", "spec")

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._parts = (_executors(spec), spec.constraints, spec.preferences, launch_bytes(spec))
        self._hash = hash(self._parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MatchKey) and self._parts == other._parts


class Demand:
    """What some tasks have in common: resources, executors, constraints, preferences, agents to avoid.

    Attributes:
        key: equal for equal demands.
        number: another one for every demand.
        match_key: the static part.
        spec: of any of the tasks.
        amounts: by name in 1/1000, devices as `device/<type>`: what fair sharing charges.
        needs: what an agent must have at the very least: the amounts, and room for one more task.
        plain: whether amounts are all it asks for, so that `needs` is also sufficient on agents where
            those names are scalars.
        avoid: agents to use only when no other fits.
        waiting: how many tasks wait.
        blocked: it is known to fit nowhere.
        blocked_since: when it was first found to fit nowhere since a task of it was last placed.
        parked_by: frameworks with tasks of it that are left alone while it is blocked.
        signature: names with the largest power of two in each need; demands of one signature are woken
            together.
    """

    __slots__ = (
        "amounts",
        "avoid",
        "blocked",
        "blocked_since",
        "key",
        "match_key",
        "needs",
        "number",
        "parked_by",
        "plain",
        "signature",
        "spec",
        "waiting",
    )

    def __init__(self, key: Hashable, task: TaskView) -> None:
        spec = task.spec
        self.key = key
        self.number = next(_numbers)
        self.spec = spec
        self.match_key = MatchKey(spec)
        self.amounts = spec.resources.fair_quantities()
        self.needs: tuple[tuple[str, int], ...] = ((TASKS, 1), *sorted(self.amounts.items()))
        self.plain = spec.resources.scalars_only
        self.avoid: frozenset[AgentId] = task.avoid
        self.waiting = 0
        self.blocked = False
        self.blocked_since: float | None = None
        self.parked_by: set[FrameworkId] = set()
        self.signature: tuple[tuple[str, int], ...] = tuple(
            (name, 1 << (milli.bit_length() - 1)) for name, milli in self.needs
        )


def demand_key(task: TaskView) -> Hashable:
    """Return what two tasks must share to be the same demand."""
    spec = task.spec
    resources = spec.resources
    return (
        tuple(sorted(resources.quantities.items())),
        _executors(spec),
        spec.constraints,
        spec.preferences,
        launch_bytes(spec),
        resources.devices,
        tuple(sorted(resources.ranges.items())),
        tuple(sorted((name, tuple(sorted(elements))) for name, elements in resources.sets.items())),
        task.avoid,
    )


def _executors(spec: TaskSpec) -> tuple[str, ...]:
    """Names in order of preference, each once: which agents suit depends on nothing else of them."""
    return tuple(dict.fromkeys(implementation.executor for implementation in spec.implementations))
