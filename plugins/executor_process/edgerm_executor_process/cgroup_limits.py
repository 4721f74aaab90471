"""From granted resources to what is written into which control group. No I/O."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from edgerm_core.cgroups import Cgroups
from edgerm_core.resources import BYTES_PER_MIB, UNIT, Resources

CPU_PERIOD_US: Final = 100_000
"""The kernel's default: a task gets `cpus` times this much processor time in each period."""

CPU_QUOTA_MIN_US: Final = 1_000
"""The kernel takes no less; it is 0.01 CPUs."""

PAGE_BYTES: Final = 4096


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One value for one file of the group.

    Attributes:
        controller: whose directory on v1.
        file: such as `memory.max`.
        value: what is written.
        needed: whether the run must not start if the kernel refuses (swap accounting may be absent).
    """

    controller: str
    file: str
    value: str
    needed: bool = True


class GroupPlan(msgspec.Struct, frozen=True):
    """The groups of one run. Plain values: it travels to the keeper and in the task handle.

    Attributes:
        v2: whether one directory serves all controllers.
        base: controller to the directory that this agent was given.
        path: controller to the run's own directory. On v2 under the one key `all`.
        writes: in this order, before the run is placed.
    """

    v2: bool = False
    base: dict[str, str] = {}
    path: dict[str, str] = {}
    writes: list[Write] = []


def mem_limit_bytes(resources: Resources) -> int | None:
    """Return the memory that was granted, in bytes rounded up to a page; None if none was."""
    milli = resources.scalars.get("mem")
    if milli is None:
        return None
    size = milli * BYTES_PER_MIB // UNIT
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def plan_groups(
    found: Cgroups, agent_group: str, run_group: str, resources: Resources, pids_limit: int
) -> GroupPlan:
    """Return the groups for one run; empty where nothing can be enforced.

    Parameters:
        found: what works here.
        agent_group: directory name that is this agent's alone.
        run_group: directory name that is this run's alone.
        pids_limit: most processes and threads.
    """
    v2 = found.version == "v2"
    milli = resources.scalars.get("cpus")
    mem_bytes = mem_limit_bytes(resources)
    writes: list[Write] = []
    if found.pids.enforced:
        writes.append(Write("pids", "pids.max", str(pids_limit)))
    if found.memory.enforced and mem_bytes is not None:
        writes += _memory_v2(mem_bytes) if v2 else _memory_v1(mem_bytes)
    if found.cpu.enforced and milli is not None:
        writes += _cpu_v2(milli) if v2 else _cpu_v1(milli)
    if v2:
        # Without a controller a group still holds the run's processes together.
        base = {"all": str(next(iter(found.parents.values())))} if found.parents else {}
    else:
        # cpuacct and memory are joined also without a limit: they count what the run uses. cpu does
        # nothing but limit, and moving a process into it takes a millisecond.
        used = {"pids", "memory", "cpuacct"} | {write.controller for write in writes}
        base = {name: str(path) for name, path in sorted(found.parents.items()) if name in used}
    path = {name: str(Path(parent, "edgerm", agent_group, run_group)) for name, parent in base.items()}
    return GroupPlan(v2, base, path, writes)


def _memory_v1(size: int) -> list[Write]:
    return [
        Write("memory", "memory.limit_in_bytes", str(size)),
        # Memory and swap together: without it a task beyond its memory would swap for ever.
        Write("memory", "memory.memsw.limit_in_bytes", str(size), needed=False),
    ]


def _memory_v2(size: int) -> list[Write]:
    return [
        Write("memory", "memory.max", str(size)),
        Write("memory", "memory.swap.max", "0", needed=False),
        Write("memory", "memory.oom.group", "1", needed=False),
    ]


def _quota_us(milli: int) -> int:
    return max(CPU_QUOTA_MIN_US, milli * CPU_PERIOD_US // UNIT)


def _shares(milli: int) -> int:
    """Weight among tasks that all want the processor: 1024 for each CPU, as everywhere since v1."""
    return min(262_144, max(2, milli * 1024 // UNIT))


def _cpu_v1(milli: int) -> list[Write]:
    return [
        Write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
        Write("cpu", "cpu.cfs_quota_us", str(_quota_us(milli))),
        Write("cpu", "cpu.shares", str(_shares(milli)), needed=False),
    ]


def _cpu_v2(milli: int) -> list[Write]:
    # The usual mapping of shares 2..262144 onto weights 1..10000 (runc, crun, systemd).
    weight = 1 + (_shares(milli) - 2) * 9999 // 262_142
    return [
        Write("cpu", "cpu.max", f"{_quota_us(milli)} {CPU_PERIOD_US}"),
        Write("cpu", "cpu.weight", str(weight), needed=False),
    ]
