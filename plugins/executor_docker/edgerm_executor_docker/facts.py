"""What an engine says about itself, and what follows from it. No I/O but one look at a mount table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

DISK_DRIVERS: Final = frozenset({"btrfs", "zfs", "devicemapper"})
"""Storage drivers that bound a container's disk by themselves; overlay does it on XFS with quotas."""

MOUNTS: Final = Path("/proc/self/mounts")


class EngineFacts(msgspec.Struct, frozen=True):
    """What matters to us.

    Attributes:
        kind, version: which engine.
        os, arch: what it runs.
        storage_driver, cgroup_version, cgroup_driver: how it works.
        cpu_limit, mem_limit, swap_limit, pids_limit, disk_limit: what it can enforce.
        survives_restart: whether containers go on while the engine is restarted.
        rootless: whether it runs as a plain user.
        warnings: its own, in its words.
    """

    kind: Literal["docker", "podman"]
    version: str
    os: str
    arch: str
    storage_driver: str
    cgroup_version: str
    cgroup_driver: str
    cpu_limit: bool
    mem_limit: bool
    swap_limit: bool
    pids_limit: bool
    disk_limit: bool
    survives_restart: bool
    rootless: bool
    warnings: tuple[str, ...] = ()

    @property
    def log_driver(self) -> str:
        """The engine's bounded log: Docker's `local` writes least to the disk; Podman has one kind."""
        return "local" if self.kind == "docker" else "json-file"


def read_facts(info: Mapping[str, Any], version: Mapping[str, Any], mounts: str) -> EngineFacts:
    """Read the answers to `GET /info` and `GET /version`.

    Parameters:
        mounts: the machine's mount table.
    """
    parts = version.get("Components") or ()
    podman = any("podman" in str(part.get("Name", "")).lower() for part in parts)
    security = [str(option) for option in info.get("SecurityOptions") or ()]
    storage_driver = str(info.get("Driver", ""))
    return EngineFacts(
        kind="podman" if podman else "docker",
        version=str(info.get("ServerVersion", "")),
        os=str(info.get("OSType", "")),
        arch=str(info.get("Architecture", "")),
        storage_driver=storage_driver,
        cgroup_version=str(info.get("CgroupVersion", "1")),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        cpu_limit=bool(info.get("CpuCfsQuota")),
        mem_limit=bool(info.get("MemoryLimit")),
        swap_limit=bool(info.get("SwapLimit")),
        pids_limit=bool(info.get("PidsLimit")),
        disk_limit=_can_limit_disk(storage_driver, str(info.get("DockerRootDir", "")), mounts),
        # Podman's containers have no engine above them; its service only looks at them.
        survives_restart=podman or bool(info.get("LiveRestoreEnabled")),
        rootless=bool(info.get("Rootless")) or any("rootless" in option for option in security),
        warnings=tuple(str(warning) for warning in info.get("Warnings") or ()),
    )


def _can_limit_disk(driver: str, root: str, mounts: str) -> bool:
    if driver in DISK_DRIVERS:
        return True
    if not driver.startswith("overlay"):
        return False
    best, kind, options = "", "", ""
    for line in mounts.splitlines():
        columns = line.split()
        if len(columns) < 4:
            continue
        place = columns[1].rstrip("/")
        if (root == place or root.startswith(place + "/")) and len(place) >= len(best):
            best, kind, options = place, columns[2], columns[3]
    return kind == "xfs" and bool({"prjquota", "pquota"} & set(options.split(",")))


def read_mounts() -> str:
    """Return the machine's mount table; empty where there is none."""
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
