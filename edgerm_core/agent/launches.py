"""Which orders an agent cannot carry out, and why.

The master checks specs and keeps the books; what it sends is checked here all the same, because paths
and delays of an order become paths and timers on this machine. The message's own durations have been
checked while it was decoded.
"""

from __future__ import annotations

import msgspec

from edgerm_core.agents import AgentInfo
from edgerm_core.errors import SpecError
from edgerm_core.ids import check_name
from edgerm_core.messages import Launch
from edgerm_core.tasks import Reason, TaskState, check_relative_path
from edgerm_core.values import MAX_DURATION_S


class Refusal(msgspec.Struct, frozen=True):
    """The final status of an order that is not carried out."""

    state: TaskState
    reason: str
    message: str


def refusal(launch: Launch, info: AgentInfo, occupied: int, max_tasks: int) -> Refusal | None:
    """Return why the agent cannot start this, or None if it can try.

    Parameters:
        info: what the agent has.
        occupied: attempts that are here already.
        max_tasks: how many there may be.
    """
    try:
        check_launch(launch)
    except SpecError as error:
        return Refusal(TaskState.ERROR, Reason.SPEC_INVALID, str(error))
    name = launch.implementation.executor
    fingerprint = next((each for each in info.executors if each.name == name), None)
    if fingerprint is None:
        problem = f"agent {info.name} has no executor {name!r}"
        return Refusal(TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE, problem)
    if not fingerprint.healthy:
        problem = f"executor {name!r} of agent {info.name} does not work: {fingerprint.problem}"
        return Refusal(TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE, problem)
    if occupied >= max_tasks:
        problem = f"agent {info.name} runs {occupied} tasks already, its limit (agent.max_tasks)"
        return Refusal(TaskState.DROPPED, Reason.RESOURCES_UNAVAILABLE, problem)
    if not info.totals.contains(launch.resources):
        problem = f"agent {info.name} no longer has [{launch.resources}]: it has [{info.totals}]"
        return Refusal(TaskState.DROPPED, Reason.RESOURCES_UNAVAILABLE, problem)
    return None


def check_launch(launch: Launch) -> None:
    """Check what becomes a path or a timer on this machine.

    Raises:
        SpecError: naming what is wrong.
    """
    what = f"task {launch.name}"
    for file in launch.files:
        check_relative_path(file.path, f"{what}: file")
    for volume in launch.volumes:
        check_relative_path(volume.path.lstrip("/"), f"{what}: volume path")
        if volume.name:
            check_name(volume.name, f"{what}: volume")
            check_name(launch.framework_id, f"{what}: framework")
    restart = launch.restart
    for field, value in (
        ("restart.delay_s", restart.delay_s),
        ("restart.max_delay_s", restart.max_delay_s),
        ("restart.interval_s", restart.interval_s),
    ):
        # Written so that NaN fails it too.
        if not 0 <= value <= MAX_DURATION_S:
            raise SpecError(f"{what}: {field} must be 0 to {MAX_DURATION_S:.0f} s, not {value}")
