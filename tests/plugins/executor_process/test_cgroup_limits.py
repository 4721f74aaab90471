"""Which values are written into which groups, for both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_executor_process.cgroup_limits import GroupPlan, mem_limit_bytes, plan_groups
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.cgroups import Cgroups, CgroupVersion, Enforcement
from edgerm_core.resources import Resources


def found(version: CgroupVersion, *, memory: bool = True) -> Cgroups:
    names = ("cpu", "cpuacct", "memory", "pids")
    if version == "v2":
        parents = {name: Path("/own") for name in ("cpu", "memory", "pids")}
    else:
        parents = {name: Path("/cg", name) for name in names if memory or name != "memory"}
    return Cgroups(
        version,
        Enforcement("cpu bandwidth", True),
        Enforcement("memory", memory),
        Enforcement("processes", True),
        parents,
    )


def values(plan: GroupPlan) -> dict[str, str]:
    return {write.file: write.value for write in plan.writes}


def test_v1_writes() -> None:
    plan = plan_groups(found("hybrid"), "agent", "t1.1.0", Resources.parse("cpus:0.5;mem:64"), 100)
    assert values(plan) == {
        "pids.max": "100",
        "memory.limit_in_bytes": str(64 << 20),
        "memory.memsw.limit_in_bytes": str(64 << 20),
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpu.shares": "512",
    }
    assert plan.path["memory"] == "/cg/memory/edgerm/agent/t1.1.0"
    assert set(plan.path) == {"cpu", "cpuacct", "memory", "pids"}


def test_v2_writes_into_one_group() -> None:
    plan = plan_groups(found("v2"), "agent", "t1.1.0", Resources.parse("cpus:1.5;mem:64"), 100)
    assert values(plan) == {
        "pids.max": "100",
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "150000 100000",
        "cpu.weight": "59",
    }
    assert plan.path == {"all": "/own/edgerm/agent/t1.1.0"}
    assert plan.base == {"all": "/own"}


def test_limit_on_processes_is_always_there_and_others_only_if_granted() -> None:
    plan = plan_groups(found("v1"), "agent", "run", Resources(), 512)
    assert values(plan) == {"pids.max": "512"}
    assert "cpu" not in plan.path


def test_what_cannot_be_enforced_is_not_written() -> None:
    plan = plan_groups(found("v1", memory=False), "agent", "run", Resources.parse("mem:64"), 512)
    assert values(plan) == {"pids.max": "512"}
    assert "memory" not in plan.path


def test_without_control_groups_the_plan_is_empty() -> None:
    nothing = Enforcement("x", False, "y")
    bare = Cgroups("none", nothing, nothing, nothing)
    plan = plan_groups(bare, "a", "r", Resources.parse("cpus:1;mem:1"), 5)
    assert plan == GroupPlan()


@pytest.mark.parametrize(("cpus", "quota"), [("0.001", "1000"), ("0.01", "1000"), ("64", "6400000")])
def test_quota_is_what_was_granted_but_no_less_than_the_kernel_takes(cpus: str, quota: str) -> None:
    plan = plan_groups(found("v1"), "a", "r", Resources.parse(f"cpus:{cpus}"), 5)
    assert values(plan)["cpu.cfs_quota_us"] == quota


@settings(deadline=None)
@given(st.integers(1, 10**9))
def test_memory_limit_is_whole_pages_and_never_less_than_granted(milli: int) -> None:
    size = mem_limit_bytes(Resources({"mem": milli}))
    assert size is not None
    assert size % 4096 == 0
    assert 0 <= size - milli * (1 << 20) // 1000 < 4096


@settings(deadline=None)
@given(st.integers(1, 10**9))
def test_weight_is_in_the_kernels_range(milli: int) -> None:
    plan = plan_groups(found("v2"), "a", "r", Resources({"cpus": milli}), 5)
    assert 1 <= int(values(plan)["cpu.weight"]) <= 10_000
