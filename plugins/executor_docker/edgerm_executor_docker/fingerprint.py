"""What the docker executor can do on this machine."""

from __future__ import annotations

from typing import Final

from edgerm_core.agents import Fingerprint
from edgerm_executor_docker.facts import EngineFacts

NAME: Final = "docker"
_NAMES: Final = {"docker": "Docker", "podman": "Podman"}


def fingerprint_engine(facts: EngineFacts) -> Fingerprint:
    """Return the fingerprint of an engine that answers."""
    problem = ""
    if facts.os != "linux":
        problem = f"this engine runs containers of {facts.os or 'an unknown system'}; tasks need Linux ones"
    return Fingerprint(
        name=NAME,
        version=f"{_NAMES[facts.kind]} {facts.version}",
        healthy=not problem,
        problem=problem,
        capabilities={
            "cpu_limit": facts.cpu_limit,
            "mem_limit": facts.mem_limit,
            "swap_limit": facts.swap_limit,
            "pids_limit": facts.pids_limit,
            "disk_limit": facts.disk_limit,
            "signals": True,
            "survives_agent_restart": True,
            "survives_engine_restart": facts.survives_restart,
            "logs": True,
            "results": True,
        },
        attributes={
            "engine": facts.kind,
            "storage_driver": facts.storage_driver,
            "cgroup_version": facts.cgroup_version,
            "cgroup_driver": facts.cgroup_driver,
            "os": facts.os,
            "arch": facts.arch,
            "rootless": facts.rootless,
        },
    )


def fingerprint_absence(problem: str) -> Fingerprint:
    """Return the fingerprint of an engine that does not answer."""
    return Fingerprint(name=NAME, healthy=False, problem=problem)


def warnings(facts: EngineFacts) -> list[str]:
    """Return one sentence for each limit that a task may ask for and would not get."""
    found = []
    if not facts.mem_limit:
        found.append(
            "memory is not limited: the kernel's memory controller is off; on a Raspberry Pi add "
            "cgroup_enable=memory cgroup_memory=1 to the one line of /boot/firmware/cmdline.txt and reboot"
        )
    elif not facts.swap_limit:
        found.append("swap is not limited, so a task may use its memory again as swap")
    if not facts.cpu_limit:
        found.append("CPUs are shared by weight only: the kernel was built without CONFIG_CFS_BANDWIDTH")
    if not facts.pids_limit:
        found.append("processes are not limited: the kernel's pids controller is off")
    return found
