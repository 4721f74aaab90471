"""What /proc says about processes. Part of the keeper: standard library only, and little of it."""

# ruff: noqa: PTH208
from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_CLOCK_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def boot_id() -> str:
    """Return what changes with every start of the machine; empty if the kernel does not say."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


class Stat:
    """Fields of `/proc/<pid>/stat` (proc(5)).

    Attributes:
        state: one letter; `Z` is dead and not yet reaped.
        parent, group, session: process ids.
        cpu_s: processor time of the process and of its children that it has waited for.
        start: clock ticks since boot; with the pid and the boot id it names a process for good.
        mem_bytes: resident memory.
    """

    __slots__ = ("cpu_s", "group", "mem_bytes", "parent", "session", "start", "state")

    def __init__(self, text: bytes) -> None:
        # The name in parentheses may itself hold spaces and parentheses.
        fields = text[text.rindex(b")") + 2 :].split()
        self.state = fields[0].decode("ascii")
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.cpu_s = sum(int(fields[i]) for i in (11, 12, 13, 14)) / _CLOCK_TICKS_PER_S
        self.start = int(fields[19])
        self.mem_bytes = int(fields[21]) * _PAGE_BYTES


def read_stat(pid: int) -> Stat | None:
    """Return what the process is; None if there is none with this id."""
    text = _read(f"/proc/{pid}/stat")
    return Stat(text) if text else None


def is_same(pid: int, start: int) -> bool:
    """Return whether the process that had this id and start time is alive."""
    stat = read_stat(pid)
    return stat is not None and stat.start == start and stat.state not in "ZX"


def family(main: int, start: int, mark: bytes) -> list[int]:
    """Return the live processes of a run where no control group holds them together.

    They are the main process, its descendants, everything in its session or process group, and
    whatever carries the run's mark in its environment, since a daemon that forks twice leaves its
    parents and its session behind.

    Parameters:
        main, start: the run's first process, leader of its session; may have ended.
        mark: `NAME=value` that only this run's environment has.
    """
    stats: dict[int, Stat] = {}
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None and stat.state not in "ZX":
                stats[int(name)] = stat
                children.setdefault(stat.parent, []).append(int(name))
    if main in stats and stats[main].start != start:
        main = -1  # Somebody else's by now; ours is gone with its session.
    found = {
        pid
        for pid, stat in stats.items()
        if pid == main or stat.session == main or stat.group == main or _is_marked(pid, mark)
    }
    queue = list(found)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    found.discard(os.getpid())
    return sorted(found)


def _is_marked(pid: int, mark: bytes) -> bool:
    return mark in _read(f"/proc/{pid}/environ").split(b"\0")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
