"""What is concluded from what engines say about themselves."""

from __future__ import annotations

from typing import Any

import pytest
from edgerm_executor_docker.facts import EngineFacts, read_facts, read_mounts

INFO = {
    "ServerVersion": "20.10.24",
    "OSType": "linux",
    "Architecture": "aarch64",
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "CpuCfsQuota": True,
    "MemoryLimit": True,
    "SwapLimit": False,
    "PidsLimit": True,
    "LiveRestoreEnabled": False,
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Warnings": ["WARNING: No swap limit support"],
}
DOCKER = {"Components": [{"Name": "Engine"}, {"Name": "containerd"}]}
PODMAN = {"Components": [{"Name": "Podman Engine"}]}


def read(mounts: str = "", version: dict[str, Any] | None = None, **changes: Any) -> EngineFacts:
    return read_facts({**INFO, **changes}, DOCKER if version is None else version, mounts)


def test_docker() -> None:
    facts = read()
    assert (facts.kind, facts.version, facts.arch, facts.log_driver) == (
        "docker",
        "20.10.24",
        "aarch64",
        "local",
    )
    assert facts.mem_limit
    assert not facts.swap_limit
    assert not facts.survives_restart
    assert facts.warnings == ("WARNING: No swap limit support",)


def test_podmans_containers_outlive_its_service() -> None:
    facts = read(version=PODMAN)
    assert (facts.kind, facts.survives_restart, facts.log_driver) == ("podman", True, "json-file")


def test_live_restore() -> None:
    assert read(LiveRestoreEnabled=True).survives_restart


@pytest.mark.parametrize(("driver", "can"), [("btrfs", True), ("zfs", True), ("vfs", False), ("", False)])
def test_disk_limit_by_driver(driver: str, can: bool) -> None:
    assert read(Driver=driver).disk_limit is can


@pytest.mark.parametrize(
    ("mounts", "can"),
    [
        ("", False),
        ("/dev/a / ext4 rw 0 0", False),
        ("/dev/a / xfs rw 0 0", False),
        ("/dev/a / xfs rw,prjquota 0 0", True),
        ("/dev/a / ext4 rw 0 0\n/dev/b /var/lib/docker xfs rw,pquota 0 0", True),
        ("/dev/a / xfs rw,prjquota 0 0\n/dev/b /var/lib ext4 rw 0 0", False),
        ("/dev/b /var/lib/docker-other xfs rw,pquota 0 0", False),
        ("nonsense", False),
    ],
)
def test_overlay_bounds_disks_on_xfs_with_quotas_only(mounts: str, can: bool) -> None:
    assert read(mounts).disk_limit is can


def test_rootless() -> None:
    assert read(SecurityOptions=["name=rootless"]).rootless
    assert read(Rootless=True).rootless
    assert not read().rootless


def test_engine_that_says_nothing_promises_nothing() -> None:
    facts = read_facts({}, {}, "")
    assert not any((facts.cpu_limit, facts.mem_limit, facts.pids_limit, facts.disk_limit))


def test_this_machine_has_mounts() -> None:
    assert " / " in read_mounts()
