"""The environment variables of a task."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.agents import AgentInfo
from edgerm_core.ids import format_task_id
from edgerm_core.interfaces import Attachment
from edgerm_core.messages import Launch


def task_environment(
    launch: Launch, restarts: int, info: AgentInfo, attachments: Iterable[Attachment] = ()
) -> dict[str, str]:
    """Return the spec's variables, those of its devices, and core's, which win in this order."""
    env = dict(launch.env)
    for attachment in attachments:
        env.update(attachment.env)
    env["EDGERM_TASK_ID"] = format_task_id(launch.task_id)
    env["EDGERM_TASK_NAME"] = launch.name
    env["EDGERM_TASK_INDEX"] = str(launch.index)
    env["EDGERM_ATTEMPT"] = str(launch.attempt)
    env["EDGERM_RESTARTS"] = str(restarts)
    env["EDGERM_AGENT_ID"] = info.id
    env["EDGERM_AGENT_NAME"] = info.name
    env["EDGERM_FRAMEWORK_ID"] = launch.framework_id
    ranges = launch.resources.ranges.get("ports")
    if ranges:
        ports = [port for low, high in ranges for port in range(low, high + 1)]
        env["EDGERM_PORTS"] = ",".join(map(str, ports))
        for index, port in enumerate(ports):
            env[f"EDGERM_PORT_{index}"] = str(port)
    return env
