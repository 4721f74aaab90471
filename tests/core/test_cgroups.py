"""Detection over made-up trees of every layout, and over the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgerm_core.cgroups import (
    DAEMON_LEAF,
    Cgroups,
    detect_cgroups,
    mem_total_bytes,
    usable_cpu_milli,
    usable_mem_bytes,
)

PI_PROC_CGROUPS = "#subsys_name hierarchy num_cgroups enabled\ncpu 0 50 1\nmemory 0 50 0\npids 0 50 1\n"


class Machine:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, base: Path) -> None:
        self.proc = base / "proc"
        self.root = base / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.root.mkdir()
        self.read_only: set[Path] = set()

    def proc_file(self, name: str, text: str) -> None:
        (self.proc / name).write_text(text)

    def group(self, path: str, **files: str) -> Path:
        """Make a group; `cpu__max="max"` becomes the file `cpu.max`."""
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in {"cgroup__procs": "", **files}.items():
            (directory / name.replace("__", ".")).write_text(text + "\n")
        return directory

    def detect(self) -> Cgroups:
        return detect_cgroups(self.root, self.proc, lambda path: path not in self.read_only)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def v1(machine: Machine, own: str = "/") -> None:
    machine.proc_file("self/cgroup", f"3:cpu,cpuacct:{own}\n2:memory:{own}\n1:pids:{own}\n")
    group = own.lstrip("/")
    machine.group(f"cpu/{group}", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    machine.group(f"cpuacct/{group}", cpuacct__usage="0")
    machine.group(f"memory/{group}", memory__limit_in_bytes="9223372036854771712")
    machine.group(f"pids/{group}")
    for name in ("cpu", "cpuacct", "memory", "pids"):
        machine.group(name)


def v2(machine: Machine, own: str = "/", here: str = "cpu io memory pids") -> Path:
    machine.proc_file("self/cgroup", f"0::{own}\n")
    machine.group(
        "", cgroup__controllers="cpuset cpu io memory pids", cgroup__subtree_control="cpu memory pids"
    )
    if own == "/":
        return machine.root
    path = ""
    for name in own.strip("/").split("/"):
        path = f"{path}/{name}".lstrip("/")
        directory = machine.group(
            path,
            cgroup__controllers=here,
            cgroup__subtree_control="",
            cpu__max="max 100000",
            memory__max="max",
        )
    return directory


def problems(found: Cgroups) -> list[str]:
    return [part.problem for part in (found.cpu, found.memory, found.pids)]


# --- v1 and hybrid ---


def test_v1_enforces_everything_below_the_own_group(machine: Machine) -> None:
    v1(machine, "/system.slice/edgerm.service")
    found = machine.detect()
    assert found.version == "v1"
    assert problems(found) == ["", "", ""]
    assert found.parents["memory"] == machine.root / "memory/system.slice/edgerm.service"
    assert found.cpu_limit_milli is None
    assert found.mem_limit_bytes is None


def test_hybrid_is_told_from_v1(machine: Machine) -> None:
    v1(machine)
    machine.group("unified", cgroup__controllers="")
    assert machine.detect().version == "hybrid"


def test_v1_limits_are_the_lowest_on_the_way_up(machine: Machine) -> None:
    v1(machine, "/a/b")
    machine.group("cpu/a", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    machine.group("cpu/a/b", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    machine.group("memory/a", memory__limit_in_bytes=str(64 << 20))
    found = machine.detect()
    assert found.cpu_limit_milli == 1500
    assert found.mem_limit_bytes == 64 << 20


def test_own_group_of_the_host_is_not_visible_in_a_container(machine: Machine) -> None:
    v1(machine)
    machine.proc_file("self/cgroup", "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n1:pids:/../x\n")
    machine.group("memory", memory__limit_in_bytes=str(32 << 20))
    found = machine.detect()
    assert found.parents["memory"] == machine.root / "memory"
    assert found.parents["pids"] == machine.root / "pids"
    assert found.mem_limit_bytes == 32 << 20


def test_kernel_without_bandwidth_control_is_named(machine: Machine) -> None:
    v1(machine)
    (machine.root / "cpu/cpu.cfs_quota_us").unlink()
    found = machine.detect()
    assert not found.cpu.enforced
    assert "CONFIG_CFS_BANDWIDTH" in found.cpu.problem
    assert found.memory.enforced


def test_root_group_without_quota_file_is_fine_where_children_have_it(machine: Machine) -> None:
    v1(machine)
    (machine.root / "cpu/cpu.cfs_quota_us").unlink()
    machine.group("cpu/system.slice", cpu__cfs_quota_us="-1")
    assert machine.detect().cpu.enforced


def test_memory_controller_switched_off_at_boot_says_what_to_add(machine: Machine) -> None:
    v1(machine)
    machine.proc_file("cgroups", PI_PROC_CGROUPS)
    for path in (machine.root / "memory").iterdir():
        path.unlink()
    (machine.root / "memory").rmdir()
    found = machine.detect()
    assert not found.memory.enforced
    assert "cgroup_enable=memory cgroup_memory=1" in found.memory.problem
    assert "/boot/firmware/cmdline.txt" in found.memory.problem


def test_controller_switched_off_by_hand_says_what_to_remove(machine: Machine) -> None:
    v2(machine)
    machine.group("", cgroup__controllers="cpu memory")
    machine.proc_file("cgroups", "pids 0 1 0\n")
    assert "cgroup_disable=pids" in machine.detect().pids.problem


def test_group_of_another_user_says_delegate(machine: Machine) -> None:
    v1(machine)
    machine.read_only = {machine.root / "cpu", machine.root / "memory"}
    found = machine.detect()
    assert not found.cpu.enforced
    assert "Delegate=yes" in found.cpu.problem
    assert "Delegate=yes" in found.memory.problem
    assert found.pids.enforced
    assert set(found.parents) == {"cpuacct", "pids"}


# --- v2 ---


def test_v2_root_enforces_everything(machine: Machine) -> None:
    v2(machine)
    found = machine.detect()
    assert found.version == "v2"
    assert problems(found) == ["", "", ""]
    assert set(found.parents.values()) == {machine.root}


def test_v2_delegated_service_uses_its_own_group(machine: Machine) -> None:
    own = v2(machine, "/system.slice/edgerm.service")
    found = machine.detect()
    assert problems(found) == ["", "", ""]
    assert set(found.parents.values()) == {own}


def test_v2_daemon_that_has_moved_into_its_leaf_uses_the_group_above(machine: Machine) -> None:
    own = v2(machine, f"/system.slice/edgerm.service/{DAEMON_LEAF}")
    assert set(machine.detect().parents.values()) == {own.parent}


def test_v2_controllers_that_are_not_passed_down_say_delegate(machine: Machine) -> None:
    v2(machine, "/user.slice/session.scope", here="memory pids")
    found = machine.detect()
    assert not found.cpu.enforced
    assert "not passed down" in found.cpu.problem
    assert "Delegate=yes" in found.cpu.problem
    assert found.memory.enforced


def test_v2_group_of_another_user_says_delegate(machine: Machine) -> None:
    own = v2(machine, "/user.slice/session.scope")
    machine.read_only = {own / "cgroup.subtree_control"}
    found = machine.detect()
    assert all("Delegate=yes" in problem for problem in problems(found))
    assert found.parents == {}


def test_v2_kernel_without_bandwidth_control_is_named(machine: Machine) -> None:
    own = v2(machine, "/edgerm.service")
    (own / "cpu.max").unlink()
    assert "CONFIG_CFS_BANDWIDTH" in machine.detect().cpu.problem


def test_v2_without_memory_controller_is_a_raspberry_pi(machine: Machine) -> None:
    v2(machine)
    machine.group("", cgroup__controllers="cpuset cpu io pids")
    assert "cmdline.txt" in machine.detect().memory.problem


def test_v2_limits_are_the_lowest_on_the_way_up(machine: Machine) -> None:
    v2(machine, "/a/b")
    machine.group("a", cpu__max="50000 100000", memory__max=str(256 << 20))
    machine.group("a/b", cpu__max="200000 100000", memory__max=str(512 << 20))
    found = machine.detect()
    assert found.cpu_limit_milli == 500
    assert found.mem_limit_bytes == 256 << 20


# --- none, and damage ---


def test_machine_without_control_groups_says_so(machine: Machine) -> None:
    found = machine.detect()
    assert found.version == "none"
    assert all("mount" in problem for problem in problems(found))
    assert found.parents == {}


@pytest.mark.parametrize("text", ["", "nonsense", "0:", "::", "1:memory", "\xff\xfe"])
def test_damaged_proc_file_harms_nothing(machine: Machine, text: str) -> None:
    v1(machine)
    machine.proc_file("self/cgroup", text)
    assert machine.detect().memory.enforced


@pytest.mark.parametrize(("quota", "period"), [("x", "100000"), ("", ""), ("1000", "0"), ("max", "100000")])
def test_damaged_quota_is_no_limit(machine: Machine, quota: str, period: str) -> None:
    v1(machine)
    machine.group("cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us=period)
    assert machine.detect().cpu_limit_milli is None


# --- totals ---


def test_usable_memory_is_the_lower_of_machine_and_group(machine: Machine) -> None:
    machine.proc_file("meminfo", "MemTotal:        1000000 kB\nMemFree: 1 kB\n")
    assert mem_total_bytes(machine.proc) == 1_024_000_000
    assert usable_mem_bytes(machine.detect(), machine.proc) == 1_024_000_000
    v1(machine)
    machine.group("memory", memory__limit_in_bytes=str(64 << 20))
    assert usable_mem_bytes(machine.detect(), machine.proc) == 64 << 20


def test_unknown_memory_is_none(machine: Machine) -> None:
    assert usable_mem_bytes(machine.detect(), machine.proc) is None


def test_usable_cpus_are_the_lower_of_affinity_and_group(machine: Machine) -> None:
    affinity = len(os.sched_getaffinity(0)) * 1000
    assert usable_cpu_milli(machine.detect()) == affinity
    v1(machine)
    machine.group("cpu", cpu__cfs_quota_us="30000", cpu__cfs_period_us="100000")
    assert usable_cpu_milli(machine.detect()) == 300
    machine.group("cpu", cpu__cfs_quota_us="100000000", cpu__cfs_period_us="100000")
    assert usable_cpu_milli(machine.detect()) == affinity


def test_real_machine_can_be_looked_at() -> None:
    found = detect_cgroups()
    assert usable_cpu_milli(found) >= 1
    assert (usable_mem_bytes(found) or 1) >= 1
    for part in (found.cpu, found.memory, found.pids):
        assert part.enforced != bool(part.problem)
