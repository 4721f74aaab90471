"""What this machine has, and how much of it the agent offers."""

from __future__ import annotations

import logging
import platform
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Attributes
from edgerm_core.cgroups import detect_cgroups, usable_cpu_milli, usable_mem_bytes
from edgerm_core.config import AgentConfig
from edgerm_core.errors import ConfigError, ResourceError, SpecError
from edgerm_core.ids import AgentId, check_name
from edgerm_core.resources import BYTES_PER_MIB, UNIT, Device, Ranges, Resources, subtract_ranges

log = logging.getLogger(__name__)

DEFAULT_PORTS: Final[Ranges] = ((31000, 31999),)
"""Mesos's range begins there too; below Linux's ephemeral ports."""


def detect_resources(data_dir: Path) -> Resources:
    """Return what the machine, or the container around the agent, has.

    `cpus` by affinity and cgroup, `mem` by cgroup or MemTotal, `disk` by what is free on the file system
    of `data_dir` now.
    """
    cgroups = detect_cgroups()
    scalars = {"cpus": usable_cpu_milli(cgroups)}
    mem_bytes = usable_mem_bytes(cgroups)
    if mem_bytes is not None:
        scalars["mem"] = mem_bytes // BYTES_PER_MIB * UNIT
    scalars["disk"] = shutil.disk_usage(data_dir).free // BYTES_PER_MIB * UNIT
    return Resources({name: milli for name, milli in scalars.items() if milli}, {"ports": DEFAULT_PORTS})


def offered_resources(detected: Resources, configured: Resources, reserve: Resources) -> Resources:
    """Return what the agent offers: detected minus reserve, capped by and added to by the config.

    A configured scalar of a detected name is a cap: more than there is cannot be offered. Configured
    ranges and sets replace the detected ones, which are only a default.
    """
    offered = detected.minus_at_most(reserve)
    scalars = dict(offered.scalars)
    for name, milli in configured.scalars.items():
        scalars[name] = min(milli, offered.scalars.get(name, 0)) if name in detected.scalars else milli
    ranges = dict(offered.ranges)
    for name, values in configured.ranges.items():
        ranges[name] = subtract_ranges(values, reserve.ranges.get(name, ()))
    return Resources(
        {name: milli for name, milli in scalars.items() if milli > 0},
        {name: values for name, values in ranges.items() if values},
        offered.sets | configured.sets,
    )


def detect_attributes() -> Attributes:
    """Return the facts that can be found out."""
    return {
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "link.class": "lan",
    }


def executor_attributes(fingerprints: Iterable[Fingerprint]) -> Attributes:
    """Return what executors say about themselves as `executor.<name>.<key>`."""
    return {
        f"executor.{fingerprint.name}.{key}": _attribute_value(value)
        for fingerprint in fingerprints
        for key, value in fingerprint.attributes.items()
    }


def _attribute_value(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


class Inventory:
    """Puts together what the agent says about itself.

    Parameters:
        config: the `[agent]` section.
        agent_id: the agent's id.
        data_dir: the agent's data directory, which must exist.

    Raises:
        ConfigError: if its resources, its reserve or its name make no sense.
    """

    def __init__(self, config: AgentConfig, agent_id: AgentId, data_dir: Path) -> None:
        detected = detect_resources(data_dir)
        configured = _parse("agent.resources", config.resources)
        self._totals = offered_resources(detected, configured, _parse("agent.reserve", config.reserve))
        for name, milli in configured.scalars.items():
            if milli > self._totals.scalars.get(name, 0):
                log.warning(
                    "agent.resources asks for more %s than there is; offering %s", name, self._totals
                )
        facts = detect_attributes()
        name = config.name or _usable_name(str(facts["hostname"]), agent_id)
        try:
            check_name(name, "agent name")
        except SpecError as error:
            raise ConfigError("agent.name", str(error)) from error
        self._facts: Attributes = {**facts, "agent": name}
        self._overrides = config.attributes
        self._id = agent_id
        self._name = name
        self._max_tasks = config.max_tasks

    def info(self, fingerprints: Iterable[Fingerprint], devices: Iterable[Device]) -> AgentInfo:
        """Return all of it, with what the executors and the drivers say now."""
        fingerprints, devices = tuple(fingerprints), tuple(devices)
        totals = msgspec.structs.replace(
            self._totals, devices={device.id: device.slots for device in devices if device.slots > 0}
        )
        attributes = {**self._facts, **executor_attributes(fingerprints), **self._overrides}
        return AgentInfo(self._id, self._name, totals, attributes, devices, fingerprints, self._max_tasks)


def _parse(where: str, text: str) -> Resources:
    try:
        return Resources.parse(text)
    except ResourceError as error:
        raise ConfigError(where, str(error)) from error


def _usable_name(hostname: str, agent_id: AgentId) -> str:
    """Return the host name if it may be a name here; some devices have none, or an odd one."""
    try:
        return check_name(hostname, "host name")
    except SpecError:
        return agent_id
