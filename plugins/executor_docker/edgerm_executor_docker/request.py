"""Writes the order for a container as the engine wants it. No I/O.

Docker Engine API, `POST /containers/create`. What is not in it is the engine's default. Security first: no
capability, no new privileges, no network, a bounded number of processes, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.ids import format_task_id
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import BYTES_PER_MIB, UNIT
from edgerm_core.results import RESULT_NAME, RESULT_VARIABLE
from edgerm_executor_docker.options import (
    DockerOptions,
    Mount,
    check_inner_path,
    read_ports,
    signal_number,
    soft_and_hard,
)

WORK_PATH: Final = "/edgerm/work"
"""Where a task sees its working directory: its files, and its result."""

MODULE_PATH: Final = "/edgerm/module"
"""Where a task sees its implementation's blob."""

LABEL_AGENT: Final = "edgerm.agent"
LABEL_TASK: Final = "edgerm.task"
LABEL_ATTEMPT: Final = "edgerm.attempt"
LABEL_RESTARTS: Final = "edgerm.restarts"

CPU_PERIOD_US: Final = 100_000
"""The kernel's default."""

MIN_CPU_QUOTA_US: Final = 1_000
"""The kernel refuses less: a hundredth of a CPU."""

SHARES_PER_CPU: Final = 1024
MIN_SHARES: Final = 2
MAX_SHARES: Final = 262_144
"""The kernel refuses more, as it does less."""

LOG_FILES: Final = 2
"""Of the engine's own log: one full, one that fills."""

NOT_IN_PATHS: Final = frozenset(',"\n\0')
"""Podman passes mounts on as text in which these mean something."""


class Grants(msgspec.Struct, frozen=True):
    """What the operator and the engine let the container have.

    Attributes:
        agent: whose containers these are.
        network: its network.
        mounts: with real host paths.
        devices: paths in /dev besides those of granted devices.
        capabilities: to be added.
        pids_limit: most processes and threads.
        work_dir: the task's working directory on the machine.
        log_driver: the engine's bounded one.
        log_bytes: size of each of its files.
        init: whether the engine has an init.
        disk_limit: whether the engine can bound the container's disk.
    """

    agent: str
    network: str
    mounts: tuple[Mount, ...]
    devices: tuple[str, ...]
    capabilities: tuple[str, ...]
    pids_limit: int
    work_dir: Path
    log_driver: str
    log_bytes: int
    init: bool
    disk_limit: bool


def container_name(agent: str, launch: TaskLaunch) -> str:
    """Return the container's name: which agent's, and which run."""
    return _name(agent, format_task_id(launch.task_id), launch.attempt, launch.restarts)


def named_by_labels(labels: Mapping[str, str]) -> str:
    """Return the name of the container that was made with these labels.

    Labels alone do not tell whose a container is: an image made of one (`docker commit`) passes them on to
    all containers of that image.
    """
    agent, task, attempt, restarts = (
        labels.get(label, "") for label in (LABEL_AGENT, LABEL_TASK, LABEL_ATTEMPT, LABEL_RESTARTS)
    )
    return _name(agent, task, attempt, restarts)


def _name(agent: str, task: str, attempt: int | str, restarts: int | str) -> str:
    return f"edgerm-{agent[:8]}-{task}.{attempt}.{restarts}"


def mem_limit_bytes(launch: TaskLaunch) -> int | None:
    """Return the memory granted; None: none was asked for."""
    milli = launch.resources.scalars.get("mem")
    return None if milli is None else milli * BYTES_PER_MIB // UNIT


def build_request(launch: TaskLaunch, options: DockerOptions, grants: Grants) -> dict[str, Any]:
    """Return the order.

    Raises:
        SpecError: if a port was not granted, or two things are to be mounted at the same place.
    """
    env = {**launch.env, RESULT_VARIABLE: f"{WORK_PATH}/{RESULT_NAME}"}
    bindings = _port_bindings(launch, options)
    request: dict[str, Any] = {
        "Image": options.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": {
            **options.labels,
            LABEL_AGENT: grants.agent,
            LABEL_TASK: format_task_id(launch.task_id),
            LABEL_ATTEMPT: str(launch.attempt),
            LABEL_RESTARTS: str(launch.restarts),
        },
        "NetworkDisabled": grants.network == "none",
        # Nobody reads its verdict, and each check wakes the machine.
        "Healthcheck": {"Test": ["NONE"]},
        # The grace that the engine gives when it is itself stopped.
        "StopTimeout": max(1, round(launch.kill_grace_s)),
        "HostConfig": _host_config(launch, options, grants, bindings),
    }
    if bindings:
        request["ExposedPorts"] = {port: {} for port in bindings}
    if launch.implementation.args:
        request["Cmd"] = [str(argument) for argument in launch.implementation.args]
    if options.entrypoint is not None:
        request["Entrypoint"] = list(options.entrypoint)
    if options.working_dir:
        request["WorkingDir"] = options.working_dir
    if options.user:
        request["User"] = options.user
    if options.stop_signal:
        request["StopSignal"] = str(signal_number(options.stop_signal))
    return request


def _host_config(
    launch: TaskLaunch,
    options: DockerOptions,
    grants: Grants,
    bindings: dict[str, list[dict[str, str]]],
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "NetworkMode": grants.network,
        "Mounts": _mounts(launch, options, grants),
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}
            for path in dict.fromkeys((*launch.device_nodes, *grants.devices))
        ],
        "CapDrop": ["ALL"],
        "CapAdd": list(grants.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "PidsLimit": grants.pids_limit,
        "ReadonlyRootfs": options.read_only,
        "Init": options.init and grants.init,
        "LogConfig": _log_config(grants),
        "RestartPolicy": {"Name": ""},
        "AutoRemove": False,
    }
    if grants.network not in ("none", "host"):
        # As Docker has it by itself and Podman has not: ports below 1024 without a capability.
        config["Sysctls"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    if bindings:
        config["PortBindings"] = bindings
    if options.tmpfs:
        config["Tmpfs"] = {path: f"rw,nosuid,nodev,size={mib}m" for path, mib in options.tmpfs.items()}
    if options.shm_mib is not None:
        config["ShmSize"] = options.shm_mib * BYTES_PER_MIB
    if options.ulimits:
        config["Ulimits"] = [
            {"Name": name, "Soft": soft, "Hard": hard}
            for name, limits in options.ulimits.items()
            for soft, hard in [soft_and_hard(name, limits)]
        ]
    config.update(_limits(launch, grants))
    return config


def _limits(launch: TaskLaunch, grants: Grants) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    scalars = launch.resources.scalars
    cpus = scalars.get("cpus")
    if cpus is not None:
        limits["CpuPeriod"] = CPU_PERIOD_US
        limits["CpuQuota"] = max(MIN_CPU_QUOTA_US, cpus * CPU_PERIOD_US // UNIT)
        limits["CpuShares"] = min(MAX_SHARES, max(MIN_SHARES, cpus * SHARES_PER_CPU // UNIT))
    memory = mem_limit_bytes(launch)
    if memory is not None:
        limits["Memory"] = memory
        # Memory and swap together: the same amount, so no swap.
        limits["MemorySwap"] = memory
    disk = scalars.get("disk")
    if disk is not None and grants.disk_limit:
        limits["StorageOpt"] = {"size": str(disk * BYTES_PER_MIB // UNIT)}
    return limits


def _log_config(grants: Grants) -> dict[str, Any]:
    options = {"max-size": str(grants.log_bytes)}
    if grants.log_driver != "json-file":
        options |= {"max-file": str(LOG_FILES), "compress": "false"}
    return {"Type": grants.log_driver, "Config": options}


def _port_bindings(launch: TaskLaunch, options: DockerOptions) -> dict[str, list[dict[str, str]]]:
    ranges = launch.resources.ranges.get("ports", ())
    granted = [port for low, high in ranges for port in range(low, high + 1)]
    bindings: dict[str, list[dict[str, str]]] = {}
    for port, protocol, index in read_ports(options):
        if index >= len(granted):
            raise SpecError(
                f"task {launch.name}: ports: {port}/{protocol} wants granted port number {index}, but "
                f"{len(granted)} were granted: ask for resources ports:{index + 1}"
            )
        bindings.setdefault(f"{port}/{protocol}", []).append({"HostPort": str(granted[index])})
    return bindings


def _mounts(launch: TaskLaunch, options: DockerOptions, grants: Grants) -> list[dict[str, Any]]:
    mounts = [Mount(str(grants.work_dir), WORK_PATH, read_only=False)]
    if launch.blob_path is not None:
        mounts.append(Mount(str(launch.blob_path.absolute()), MODULE_PATH))
    for volume, directory in launch.volumes:
        path = volume.path if volume.path.startswith("/") else f"{WORK_PATH}/{volume.path}"
        check_inner_path(f"task {launch.name}: volumes", path)
        mounts.append(Mount(str(directory.absolute()), path, volume.read_only))
    mounts += grants.mounts
    taken = set(options.tmpfs)
    for mount in mounts:
        place = mount.path.rstrip("/")
        if place in taken:
            raise SpecError(f"task {launch.name}: two things are to be mounted at {place}")
        taken.add(place)
        for path in (mount.host, mount.path):
            if NOT_IN_PATHS & set(path):
                raise SpecError(
                    f"task {launch.name}: {path[:120]!r} cannot be mounted: it holds a comma or quote"
                )
    return [
        {"Type": "bind", "Source": mount.host, "Target": mount.path, "ReadOnly": mount.read_only}
        for mount in mounts
    ]
