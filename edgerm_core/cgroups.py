"""What Linux control groups can enforce here, and which limits already apply to this process.

Read-only: nothing is created or changed. The agent's inventory uses it so that the totals of an
agent in a container are those of the container, `edgerm doctor` prints it, and executors take from it
where to make their groups.

Three layouts exist (see cgroups(7)): v1 has one tree for each controller; v2 has one tree for all;
hybrid has v1 controllers and an empty v2 tree in `unified`. Raspberry Pi OS, older Yocto images and
containers still bring all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import msgspec

PROC: Final = Path("/proc")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")

DAEMON_LEAF: Final = "edgerm-daemon"
"""On v2 a group whose controllers are passed down may hold no processes itself (cgroups(7), "no
internal processes"), so the agent's own processes move into this child of the agent's group."""

V1_CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "pids")

_NO_LIMIT_BYTES: Final = 1 << 60
"""v1 spells "no memory limit" as the largest number of pages; anything this large means none."""

CgroupVersion = Literal["v1", "v2", "hybrid", "none"]


class Enforcement(msgspec.Struct, frozen=True):
    """Whether one kind of limit can be enforced on tasks.

    Attributes:
        what: for people: `cpu bandwidth`, `memory`, `processes`.
        enforced: whether an executor that uses control groups can enforce it here and now.
        problem: if not: one sentence that says why and how to fix it.
    """

    what: str
    enforced: bool
    problem: str = ""


class Cgroups(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        version: which layout.
        cpu, memory, pids: what can be enforced on tasks.
        parents: controller to the directory below which this process may make groups. On v2 all
            are the same directory.
        cpu_limit_milli: CPUs in 1/1000 that this very process may use; None: no limit.
        mem_limit_bytes: memory that this very process may use; None: no limit.
    """

    version: CgroupVersion
    cpu: Enforcement
    memory: Enforcement
    pids: Enforcement
    parents: dict[str, Path] = {}
    cpu_limit_milli: int | None = None
    mem_limit_bytes: int | None = None


def usable_cpu_milli(found: Cgroups) -> int:
    """Return the CPUs this process may use in 1/1000: its affinity, or its cgroup's limit if lower."""
    affinity = len(os.sched_getaffinity(0)) * 1000
    return affinity if found.cpu_limit_milli is None else min(affinity, found.cpu_limit_milli)


def usable_mem_bytes(found: Cgroups, proc: Path = PROC) -> int | None:
    """Return the memory this process may use: the machine's, or its cgroup's limit if lower.

    None: neither is known (no Linux, or /proc is not mounted).
    """
    known = [amount for amount in (mem_total_bytes(proc), found.mem_limit_bytes) if amount is not None]
    return min(known) if known else None


def mem_total_bytes(proc: Path = PROC) -> int | None:
    """Return the machine's memory from `/proc/meminfo`; None if it cannot be read."""
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK)


def detect_cgroups(
    root: Path = CGROUP_ROOT, proc: Path = PROC, may_write: Callable[[Path], bool] = _may_write
) -> Cgroups:
    """Look at the control groups of this process. A few dozen small reads; never raises.

    Parameters:
        root: where the trees are mounted.
        proc: where procfs is mounted.
        may_write: whether this process may write to a path.
    """
    own = _own_groups(proc)
    if (root / "cgroup.controllers").exists():
        return _detect_v2(root, own.get("", "/"), proc, may_write)
    if any((root / name / "cgroup.procs").exists() for name in V1_CONTROLLERS):
        return _detect_v1(root, own, proc, may_write)
    problem = (
        f"{root} has no control groups: mount them (mount -t cgroup2 none {root}), or in a container "
        f"pass them in"
    )
    return Cgroups(
        "none",
        Enforcement("cpu bandwidth", False, problem),
        Enforcement("memory", False, problem),
        Enforcement("processes", False, problem),
    )


# --- v1 and hybrid ------------------------------------------------------------------------------


def _detect_v1(root: Path, own: dict[str, str], proc: Path, may_write: Callable[[Path], bool]) -> Cgroups:
    groups: dict[str, Path] = {}
    for name in V1_CONTROLLERS:
        if (root / name / "cgroup.procs").exists():
            groups[name] = _existing(root / name, own.get(name, "/"))
    parents = {name: path for name, path in groups.items() if may_write(path)}

    def check(name: str, what: str, needs: str) -> Enforcement:
        path = groups.get(name)
        if path is None:
            return Enforcement(what, False, _missing(name, _disabled_at_boot(proc, name)))
        if needs and not (path / needs).exists() and not _child_has(path, needs):
            return Enforcement(what, False, _no_file(name, needs))
        if name not in parents:
            return Enforcement(what, False, _not_writable(path))
        return Enforcement(what, True)

    cpu = groups.get("cpu")
    memory = groups.get("memory")
    return Cgroups(
        version="hybrid" if (root / "unified" / "cgroup.controllers").exists() else "v1",
        cpu=check("cpu", "cpu bandwidth", "cpu.cfs_quota_us"),
        memory=check("memory", "memory", ""),
        pids=check("pids", "processes", ""),
        parents=parents,
        cpu_limit_milli=_minimum(_cpu_limit_v1(level) for level in _levels(root / "cpu", cpu)),
        mem_limit_bytes=_minimum(
            _amount(_read(level / "memory.limit_in_bytes")) for level in _levels(root / "memory", memory)
        ),
    )


def _cpu_limit_v1(group: Path) -> int | None:
    return _cpu_milli(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


# --- v2 -----------------------------------------------------------------------------------------


def _detect_v2(root: Path, own: str, proc: Path, may_write: Callable[[Path], bool]) -> Cgroups:
    group = _existing(root, own)
    parent = group.parent if group.name == DAEMON_LEAF and group != root else group
    everywhere = _read(root / "cgroup.controllers").split()
    here = _read(parent / "cgroup.controllers").split()
    writable = all(may_write(parent / name) for name in ("", "cgroup.procs", "cgroup.subtree_control"))
    parents: dict[str, Path] = {}

    def check(name: str, what: str, needs: str) -> Enforcement:
        if name not in everywhere:
            return Enforcement(
                what, False, _missing(name, name == "memory" or _disabled_at_boot(proc, name))
            )
        if name not in here:
            problem = (
                f"the {name} controller is not passed down to {parent}: run the agent as a systemd "
                f"service with Delegate=yes, or as root"
            )
            return Enforcement(what, False, problem)
        # The root group has no such files itself, but its children have them.
        if needs and parent != root and not (parent / needs).exists():
            return Enforcement(what, False, _no_file(name, needs))
        if not writable:
            return Enforcement(what, False, _not_writable(parent))
        parents[name] = parent
        return Enforcement(what, True)

    return Cgroups(
        version="v2",
        cpu=check("cpu", "cpu bandwidth", "cpu.max"),
        memory=check("memory", "memory", ""),
        pids=check("pids", "processes", ""),
        parents=parents,
        cpu_limit_milli=_minimum(_cpu_limit_v2(level) for level in _levels(root, group)),
        mem_limit_bytes=_minimum(_amount(_read(level / "memory.max")) for level in _levels(root, group)),
    )


def _cpu_limit_v2(group: Path) -> int | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return _cpu_milli(quota, period)


# --- sentences ----------------------------------------------------------------------------------


def _missing(controller: str, disabled_at_boot: bool) -> str:
    if controller == "memory" and disabled_at_boot:
        return (
            "the memory controller is switched off at boot: add cgroup_enable=memory cgroup_memory=1 to "
            "the kernel command line (Raspberry Pi: the one line of /boot/firmware/cmdline.txt) and reboot"
        )
    if disabled_at_boot:
        return (
            f"the {controller} controller is switched off at boot: remove cgroup_disable={controller} "
            f"from the kernel command line and reboot"
        )
    return (
        f"the {controller} controller is not there: mount it, or use a kernel built with "
        f"{_KERNEL_OPTIONS[controller]}"
    )


_KERNEL_OPTIONS: Final = {
    "cpu": "CONFIG_CGROUP_SCHED and CONFIG_CFS_BANDWIDTH",
    "memory": "CONFIG_MEMCG",
    "pids": "CONFIG_CGROUP_PIDS",
}


def _no_file(controller: str, name: str) -> str:
    return (
        f"{name} is missing, so this kernel was built without CONFIG_CFS_BANDWIDTH and shares the "
        f"{controller} by weight only: use a kernel with that option"
    )


def _not_writable(path: Path) -> str:
    return (
        f"{path} is not writable for this user: run the agent as a systemd service with Delegate=yes, "
        f"or as root"
    )


def _disabled_at_boot(proc: Path, controller: str) -> bool:
    for line in _read(proc / "cgroups").splitlines():
        columns = line.split()
        if len(columns) == 4 and columns[0] == controller:
            return columns[3] == "0"
    return False


# --- reading ------------------------------------------------------------------------------------


def _own_groups(proc: Path) -> dict[str, str]:
    """Return this process's group by controller; v2's has the empty name."""
    groups: dict[str, str] = {}
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(","):
            groups[name] = path
    return groups


def _existing(tree: Path, own: str) -> Path:
    """Return the group's directory, or the tree's root where it is not visible.

    In a container without a cgroup namespace `/proc/self/cgroup` names the path on the host, while the
    tree that is mounted here begins at that very group.
    """
    relative = PurePosixPath(own.lstrip("/"))
    path = tree / relative
    return path if ".." not in relative.parts and path.is_dir() else tree


def _levels(tree: Path, group: Path | None) -> Iterator[Path]:
    """Yield `group` and the groups above it, up to and including the root of its tree."""
    if group is None:
        return
    while True:
        yield group
        if group in (tree, group.parent):
            return
        group = group.parent


def _child_has(group: Path, name: str) -> bool:
    """Return whether any child group has the file: the root group itself need not."""
    try:
        return any((child / name).exists() for child in group.iterdir() if child.is_dir())
    except OSError:
        return False


def _amount(text: str) -> int | None:
    """Return a limit in bytes; None for `max`, for v1's "no limit", and for what cannot be read."""
    if not text.isdigit() or int(text) >= _NO_LIMIT_BYTES:
        return None
    return int(text)


def _cpu_milli(quota_us: str, period_us: str) -> int | None:
    if not quota_us.isdigit() or not period_us.isdigit() or int(period_us) == 0:
        return None
    return max(1, int(quota_us) * 1000 // int(period_us))


def _minimum(amounts: Iterator[int | None]) -> int | None:
    return min((amount for amount in amounts if amount is not None), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
