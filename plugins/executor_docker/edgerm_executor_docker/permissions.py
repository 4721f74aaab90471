"""What the operator lets tasks have of the machine: networks, mounts, devices, capabilities, ulimits."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import Final

from edgerm_core.errors import ExecutorError, SpecError
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.options import DockerOptions, Mount, capability_name

SECTION: Final = "[executor.docker]"

PRIORITY_LIMITS: Final = frozenset({"rtprio", "nice"})
"""getrlimit(2): they let a process without SYS_NICE go before others. A real-time process is outside of the
quota of `cpus` on kernels without RT_GROUP_SCHED, and leaves an agent beside it no time."""


def allowed_network(config: DockerConfig, options: DockerOptions) -> str:
    """Return the network of the task.

    Raises:
        SpecError: if it may not have that one, or one without ports while it asks for ports.
    """
    network = options.network or ("bridge" if options.ports else "none")
    if network not in config.networks:
        there = ", ".join(config.networks) or "none at all"
        raise SpecError(
            f"network {network[:60]!r} is not allowed on this agent (allowed: {there}); its operator can "
            f"add it to networks in {SECTION}"
        )
    if options.ports and network in ("none", "host"):
        hint = (
            "its programs listen on the granted ports themselves, see EDGERM_PORT_0"
            if network == "host"
            else "use bridge"
        )
        raise SpecError(f"ports make no sense with network {network}: {hint}")
    return network


def allowed_mounts(config: DockerConfig, options: DockerOptions) -> tuple[Mount, ...]:
    """Return the mounts with their real host paths, all links followed. Blocking.

    The engine is given the real path, so a link that is put there afterwards leads nowhere else, unless
    it takes the place of a directory on that path: hence operators allow places in which no task can write
    next to what others mount.

    Raises:
        SpecError: if one leads out of what the operator allows.
        ExecutorError: if there is nothing at that path.
    """
    allowed = [os.path.realpath(path) for path in config.allow_mounts]
    found: list[Mount] = []
    for mount in options.mounts:
        if not mount.host.startswith("/") or ":" in mount.host or "\0" in mount.host:
            raise SpecError(f"mounts: {mount.host[:80]!r} must be an absolute path without ':'")
        real = os.path.realpath(mount.host)
        if not any(real == base or real.startswith(base.rstrip("/") + "/") for base in allowed):
            leads = f" (it leads to {real})" if real != mount.host else ""
            there = ", ".join(config.allow_mounts) or "nothing"
            raise SpecError(
                f"mounts: {mount.host[:120]} is not allowed on this agent{leads}; allowed is {there}; its "
                f"operator can add it to allow_mounts in {SECTION}"
            )
        if ":" in real:
            raise SpecError(
                f"mounts: {mount.host[:80]} leads to a path with a ':', which engines cannot mount"
            )
        if not os.path.exists(real):  # noqa: PTH110
            raise ExecutorError(f"mounts: there is no {mount.host} on this machine")
        found.append(Mount(real, mount.path, mount.read_only))
    return tuple(found)


def allowed_devices(config: DockerConfig, options: DockerOptions) -> tuple[str, ...]:
    """Return the paths in /dev that the task asks for.

    Raises:
        SpecError: if the operator does not allow one.
    """
    for path in options.devices:
        clean = path.startswith("/dev/") and ".." not in path.split("/") and ":" not in path
        if not clean or not any(fnmatchcase(path, pattern) for pattern in config.allow_devices):
            there = ", ".join(config.allow_devices) or "none but those granted to a task"
            raise SpecError(
                f"devices: {path[:80]} is not allowed on this agent; allowed are {there}; its operator can "
                f"add it to allow_devices in {SECTION}"
            )
    return options.devices


def allowed_capabilities(config: DockerConfig, options: DockerOptions) -> tuple[str, ...]:
    """Return the capabilities that the task asks for.

    Raises:
        SpecError: if the operator does not allow one.
    """
    allowed = {capability_name(name) for name in config.allow_capabilities}
    wanted = tuple(dict.fromkeys(map(capability_name, options.cap_add)))
    for name in wanted:
        if name not in allowed:
            there = ", ".join(sorted(allowed)) or "none"
            raise SpecError(
                f"cap_add: {name} is not allowed on this agent (allowed: {there}); its operator can add it "
                f"to allow_capabilities in {SECTION}"
            )
    return wanted


def check_ulimits(config: DockerConfig, options: DockerOptions) -> None:
    """Check that no limit gives a task what a capability would.

    Raises:
        SpecError: if one does, and the operator does not allow that capability.
    """
    allowed = {capability_name(name) for name in config.allow_capabilities}
    for name in options.ulimits:
        if name in PRIORITY_LIMITS and "SYS_NICE" not in allowed:
            raise SpecError(
                f"ulimits: {name} is not allowed on this agent, since it lets a task take processor time "
                f"from all others; its operator can add SYS_NICE to allow_capabilities in {SECTION}"
            )
