"""Feasibility: can this task run on this agent, and if not, what stands in the way.

The one answer that schedulers, the master's check of a placement and `edgerm explain` share. A task
can run where an executor for one of its implementations works, every constraint holds and the
resources it asks for are free. Pure and cheap: the common case costs a few dictionary look-ups.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from edgerm_core.attributes import Attributes, Constraint, satisfies
from edgerm_core.interfaces import AgentView
from edgerm_core.limits import MAX_LAUNCH_BYTES
from edgerm_core.resources import Resources, Shortage, grant
from edgerm_core.tasks import Implementation, RestartPolicy, TaskSpec

ObstacleKind = Literal["executor", "constraint", "launch", "tasks", "resources", "device"]

LAUNCH_STEP_BYTES: Final = 128
"""Sizes of launches are told apart in steps of this: tasks that differ in a name are alike."""


class Obstacle(msgspec.Struct, frozen=True, array_like=True):
    """One thing that keeps a task from an agent.

    Attributes:
        kind: `executor`, `constraint`, `launch`, `tasks`, `resources` or `device`. Only the last three
            can pass by themselves, when other tasks end.
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


def launch_bytes(spec: TaskSpec) -> int:
    """Return about how large the task's Launch is on the wire, in steps of `LAUNCH_STEP_BYTES`.

    Made to be quick and rather too large than too small: of several implementations the largest counts.
    The master finds out exactly when it sends.
    """
    size = 128 + _text_bytes(spec.name)
    size += max((_implementation_bytes(each) for each in spec.implementations), default=0)
    for name, value in spec.env.items():
        size += 6 + _text_bytes(name) + _text_bytes(value)
    for file in spec.files:
        size += 64 + _text_bytes(file.path)
    for volume in spec.volumes:
        size += 32 + _text_bytes(volume.path) + _text_bytes(volume.name)
    if spec.restart != RestartPolicy():
        size += 80
    size += 24 * (len(spec.resources.quantities) + len(spec.resources.ranges))
    for device in spec.resources.devices:
        size += 70 * device.count
    return -(-size // LAUNCH_STEP_BYTES) * LAUNCH_STEP_BYTES


def _implementation_bytes(implementation: Implementation) -> int:
    size = _text_bytes(implementation.executor) + (64 if implementation.blob else 24)
    for arg in implementation.args:
        size += 5 + _text_bytes(arg) if isinstance(arg, str) else 9
    if implementation.options:
        size += len(msgspec.msgpack.encode(implementation.options)) + 16
    return size


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def suits(spec: TaskSpec, agent: AgentView) -> bool:
    """Return whether executors, constraints and the agent's connection allow the task, whatever is free.

    The answer stays the same while the agent's `static_version` does.
    """
    return (
        choose_implementation(spec, agent.executors) is not None
        and all(satisfies(constraint, agent.attributes) for constraint in spec.constraints)
        and _takes_launch(spec, agent)
    )


def _takes_launch(spec: TaskSpec, agent: AgentView) -> bool:
    return agent.max_message_bytes >= MAX_LAUNCH_BYTES or launch_bytes(spec) <= agent.max_message_bytes


def check(spec: TaskSpec, agent: AgentView) -> Resources | list[Obstacle]:
    """Return what the task would be granted on the agent now, or every obstacle there is."""
    granted = grant(spec.resources, agent.free, agent.devices)
    obstacles = [] if suits(spec, agent) else _static_obstacles(spec, agent)
    if agent.tasks_left < 1:
        obstacles.append(Obstacle("tasks", "tasks: runs as many at once as it takes (its max_tasks)"))
    if not isinstance(granted, Resources):
        return obstacles + [_shortage(short) for short in granted]
    return obstacles or granted


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
    if not _takes_launch(spec, agent):
        sentence = (
            f"launch: about {launch_bytes(spec)} bytes, its connection takes {agent.max_message_bytes}"
        )
        obstacles.append(Obstacle("launch", sentence))
    return obstacles


def _fact(constraint: Constraint, attributes: Attributes) -> str:
    if constraint.attribute not in attributes:
        return f"{constraint.attribute} is not set"
    value = attributes[constraint.attribute]
    return f"{constraint.attribute} is {str(value).lower() if isinstance(value, bool) else value}"


def _shortage(short: Shortage) -> Obstacle:
    return Obstacle("device" if short.name.startswith("device/") else "resources", str(short))
