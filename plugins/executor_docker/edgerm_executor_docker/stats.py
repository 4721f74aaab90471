"""What a container uses: from its control groups, which takes a fraction of a millisecond, or else from the
engine, which takes longer than most tasks' own work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgerm_core.interfaces import TaskStats

PROC: Final = Path("/proc")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
NS_PER_S: Final = 1e9
US_PER_S: Final = 1e6


def read_stats(
    container: str, pid: int, own_network: bool, proc: Path = PROC, root: Path = CGROUP_ROOT
) -> TaskStats | None:
    """Return what a container uses; None: its groups are not to be seen from here. A few small reads.

    Parameters:
        container: its id.
        pid: of its first process.
        own_network: whether its network is its own.
    """
    groups = _groups(proc / str(pid), container)
    if groups is None:
        return None
    found = _read_v2(root / groups[""].lstrip("/")) if set(groups) == {""} else _read_v1(root, groups)
    if found is None:
        return None
    cpu_s, mem_bytes, peak_bytes = found
    received, sent = _network(proc / str(pid)) if own_network else (None, None)
    return TaskStats(cpu_s, mem_bytes, peak_bytes, received, sent)


def _groups(process: Path, container: str) -> dict[str, str] | None:
    """Return the process's groups by controller, v2's with the empty name; None: not this container's."""
    groups: dict[str, str] = {}
    for line in _text(process / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Otherwise the number belongs to another process by now, or names of groups are hidden from us.
        if container in path:
            for name in controllers.split(","):
                groups[name] = path
    if len(groups) > 1:
        groups.pop("", None)
    return groups or None


def _read_v1(root: Path, groups: Mapping[str, str]) -> tuple[float, int, int | None] | None:
    if "cpuacct" not in groups or "memory" not in groups:
        return None
    cpu_ns = _number(root / "cpuacct" / groups["cpuacct"].lstrip("/") / "cpuacct.usage")
    memory = root / "memory" / groups["memory"].lstrip("/")
    used = _number(memory / "memory.usage_in_bytes")
    if cpu_ns is None or used is None:
        return None
    cache = _table(memory / "memory.stat").get("total_inactive_file", 0)
    return cpu_ns / NS_PER_S, max(0, used - cache), _number(memory / "memory.max_usage_in_bytes")


def _read_v2(group: Path) -> tuple[float, int, int | None] | None:
    cpu_us = _table(group / "cpu.stat").get("usage_usec")
    used = _number(group / "memory.current")
    if cpu_us is None or used is None:
        return None
    cache = _table(group / "memory.stat").get("inactive_file", 0)
    return cpu_us / US_PER_S, max(0, used - cache), _number(group / "memory.peak")


def _network(process: Path) -> tuple[int | None, int | None]:
    """Return bytes received and sent over all interfaces but the loopback one (proc_pid_net(5))."""
    received = sent = 0
    lines = _text(process / "net" / "dev").splitlines()[2:]
    if not lines:
        return None, None
    for line in lines:
        name, _, rest = line.partition(":")
        columns = rest.split()
        if name.strip() != "lo" and len(columns) >= 9:
            received += int(columns[0])
            sent += int(columns[8])
    return received, sent


def engine_stats(raw: Mapping[str, Any]) -> TaskStats:
    """Read the engine's own answer to `GET /containers/{id}/stats`."""
    memory = raw.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    used = memory.get("usage")
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    cpu_ns = ((raw.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage")
    networks = raw.get("networks")
    interfaces = networks.values() if isinstance(networks, dict) else ()
    return TaskStats(
        cpu_s=cpu_ns / NS_PER_S if cpu_ns else None,
        mem_bytes=max(0, used - cache) if used else None,
        mem_peak_bytes=memory.get("max_usage") or None,
        net_rx_bytes=sum(each.get("rx_bytes", 0) for each in interfaces) if interfaces else None,
        net_tx_bytes=sum(each.get("tx_bytes", 0) for each in interfaces) if interfaces else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _table(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found
