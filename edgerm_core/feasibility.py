"""Feasibility: can this task run on this agent, and if not, what stands in the way.

The one answer that schedulers, the master's check of a placement and `edgerm explain` share. A task
can run where an executor for one of its implementations works, every constraint holds and the
resources it asks for are free. Pure and cheap: the common case costs a few dictionary look-ups.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgerm_core.attributes import Attributes, Constraint, satisfies
from edgerm_core.interfaces import AgentView
from edgerm_core.resources import Resources, Shortage, grant
from edgerm_core.tasks import TaskSpec

ObstacleKind = Literal["executor", "constraint", "resources", "device"]


class Obstacle(msgspec.Struct, frozen=True, array_like=True):
    """One thing that keeps a task from an agent.

    Attributes:
        kind: `executor`, `constraint`, `resources` or `device`. Only the last two can pass by
            themselves, when other tasks end.
        sentence: for a person, without the agent's name: `cpus: wants 4, has 1.5`.
    """

    kind: ObstacleKind
    sentence: str


def choose_implementation(spec: TaskSpec, executors: frozenset[str]) -> int | None:
    """Return the index of the first implementation that one of `executors` runs; None if none does."""
    for index, implementation in enumerate(spec.implementations):
        if implementation.executor in executors:
            return index
    return None


def suits(spec: TaskSpec, agent: AgentView) -> bool:
    """Return whether executors and constraints allow the task, whatever is free.

    The answer stays the same while the agent's `static_version` does.
    """
    return choose_implementation(spec, agent.executors) is not None and all(
        satisfies(constraint, agent.attributes) for constraint in spec.constraints
    )


def check(spec: TaskSpec, agent: AgentView) -> Resources | list[Obstacle]:
    """Return what the task would be granted on the agent now, or every obstacle there is."""
    if suits(spec, agent):
        granted = grant(spec.resources, agent.free, agent.devices)
        if isinstance(granted, Resources):
            return granted
        return [_shortage(short) for short in granted]
    obstacles = _static_obstacles(spec, agent)
    granted = grant(spec.resources, agent.free, agent.devices)
    if not isinstance(granted, Resources):
        obstacles += [_shortage(short) for short in granted]
    return obstacles


def fits_totals(spec: TaskSpec, agent: AgentView) -> bool:
    """Return whether the task could run on the agent if nothing else did."""
    if not suits(spec, agent):
        return False
    totals = agent.totals
    slots = {device.id: device.slots for device in agent.devices.values()}
    empty = Resources(totals.scalars, totals.ranges, totals.sets, slots)
    return isinstance(grant(spec.resources, empty, agent.devices), Resources)


def _static_obstacles(spec: TaskSpec, agent: AgentView) -> list[Obstacle]:
    obstacles: list[Obstacle] = []
    if choose_implementation(spec, agent.executors) is None:
        wanted = " or ".join(dict.fromkeys(i.executor for i in spec.implementations)) or "one"
        have = ", ".join(sorted(agent.executors)) or "none"
        obstacles.append(Obstacle("executor", f"executor: wants {wanted}, has {have}"))
    obstacles += [
        Obstacle("constraint", f"constraint {constraint}: {_fact(constraint, agent.attributes)}")
        for constraint in spec.constraints
        if not satisfies(constraint, agent.attributes)
    ]
    return obstacles


def _fact(constraint: Constraint, attributes: Attributes) -> str:
    if constraint.attribute not in attributes:
        return f"{constraint.attribute} is not set"
    value = attributes[constraint.attribute]
    return f"{constraint.attribute} is {str(value).lower() if isinstance(value, bool) else value}"


def _shortage(short: Shortage) -> Obstacle:
    return Obstacle("device" if short.name.startswith("device/") else "resources", str(short))
