"""The control groups of one run: made, filled, read, emptied, removed. Part of the keeper."""

# ruff: noqa: PTH103, PTH106, PTH112, PTH118, PTH120
from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

DAEMON_LEAF: Final = "edgerm-daemon"
"""As in `edgerm_core.cgroups`, which is too large to import here."""

MOVE_ROUNDS: Final = 10
"""How often processes are moved out of a group that must become empty: new ones may be forked."""


MAKE_TRIES: Final = 5


class Group:
    """The groups that a `cgroup_limits.GroupPlan` describes. An empty plan is falsy."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._v2: bool = plan["v2"]
        self._base: dict[str, str] = plan["base"]
        self._path: dict[str, str] = plan["path"]
        self._writes: list[tuple[str, str, str, bool]] = plan["writes"]

    def __bool__(self) -> bool:
        return bool(self._path)

    def make(self) -> None:
        """Make the directories and write the limits.

        Raises:
            OSError: if the kernel refuses one that is needed; what was made before is removed.
        """
        try:
            for controller, path in self._path.items():
                self._make_directory(self._base[controller], path)
            for controller, name, value, needed in self._writes:
                try:
                    _write(os.path.join(self._directory(controller), name), value)
                except OSError:
                    if needed:
                        raise
        except OSError:
            self.remove()
            raise

    def _make_directory(self, base: str, path: str) -> None:
        parent = os.path.dirname(path)
        for _ in range(MAKE_TRIES):
            try:
                if not os.path.isdir(parent):
                    os.makedirs(parent, exist_ok=True)
                    if self._v2:
                        for level in (base, os.path.dirname(parent), parent):
                            _pass_down(level)
                os.makedirs(path, exist_ok=True)
                return
            except FileNotFoundError:
                pass  # Another agent's keeper removed the shared parent at this moment.
        os.makedirs(path, exist_ok=True)

    def exists(self) -> bool:
        """Return whether somebody has made it."""
        return any(os.path.isdir(path) for path in self._path.values())

    def procs_files(self) -> list[str]:
        """Return the files into which a process writes `0` to join."""
        # Directories may be one under two names (v1: cpu and cpuacct). The cpu limit comes last, so that
        # joining the other groups is not slowed down by it.
        names = sorted(self._path, key=lambda name: (name == "cpu", name))
        return [os.path.join(self._path[name], "cgroup.procs") for name in names]

    def pids(self) -> list[int]:
        """Return the live processes in it."""
        for name in ("all", "pids", "memory", "cpuacct", "cpu"):
            if name in self._path:
                return [int(line) for line in _read(os.path.join(self._path[name], "cgroup.procs")).split()]
        return []

    def forbid_forks(self) -> None:
        """Let nothing new be born, so that killing what is there comes to an end."""
        try:
            _write(os.path.join(self._directory("pids"), "pids.max"), "0")
        except (OSError, KeyError):
            pass  # Without the controller the killing goes round by round.

    def unthrottle(self) -> None:
        """Lift the limit on the processor: what has been killed needs some of it to die.

        Hundreds of processes that share a small part of one take minutes otherwise.
        """
        name, value = ("cpu.max", "max") if self._v2 else ("cpu.cfs_quota_us", "-1")
        try:
            _write(os.path.join(self._directory("cpu"), name), value)
        except (OSError, KeyError):
            pass

    def usage(self) -> tuple[float | None, int | None, int | None]:
        """Return (processor seconds, memory now, most memory so far); None where it is not counted."""
        if self._v2:
            micros = _field(self._file("cpu", "cpu.stat"), "usage_usec")
            cpu_s = None if micros is None else micros / 1e6
            return cpu_s, self._number("memory", "memory.current"), self._number("memory", "memory.peak")
        nanos = self._number("cpuacct", "cpuacct.usage")
        return (
            None if nanos is None else nanos / 1e9,
            self._number("memory", "memory.usage_in_bytes"),
            self._number("memory", "memory.max_usage_in_bytes"),
        )

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for memory."""
        name = "memory.events" if self._v2 else "memory.oom_control"
        return _field(self._file("memory", name), "oom_kill") or 0

    def pids_hits(self) -> int:
        """Return how often a fork was refused because of the limit."""
        return _field(self._file("pids", "pids.events"), "max") or 0

    def remove(self) -> bool:
        """Remove the directories; return whether all are gone. Idempotent; never raises."""
        gone = True
        for path in self._path.values():
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone

    def parents(self) -> set[str]:
        """Return the directories above, which all runs of the agent share."""
        return {os.path.dirname(path) for path in self._path.values()}

    def _directory(self, controller: str) -> str:
        return self._path["all" if self._v2 else controller]

    def _file(self, controller: str, name: str) -> str:
        try:
            return _read(os.path.join(self._directory(controller), name))
        except KeyError:
            return ""

    def _number(self, controller: str, name: str) -> int | None:
        text = self._file(controller, name).strip()
        return int(text) if text.isdigit() else None


def remove_parent(path: str) -> None:
    """Remove an agent's directory, and the one that agents share, if nobody uses them any more."""
    try:
        os.rmdir(path)
        os.rmdir(os.path.dirname(path))
    except OSError:
        pass


def _pass_down(level: str) -> None:
    """Give a v2 group's children the controllers that it has itself.

    Raises:
        OSError: if the kernel refuses although no process is in the group any more.
    """
    wanted = [
        name for name in ("cpu", "memory", "pids") if name in _read(f"{level}/cgroup.controllers").split()
    ]
    control = f"{level}/cgroup.subtree_control"
    if set(wanted) <= set(_read(control).split()):
        return
    value = " ".join(f"+{name}" for name in wanted)
    for _ in range(MOVE_ROUNDS):
        try:
            _write(control, value)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        os.makedirs(f"{level}/{DAEMON_LEAF}", exist_ok=True)
        for pid in _read(f"{level}/cgroup.procs").split():
            try:
                _write(f"{level}/{DAEMON_LEAF}/cgroup.procs", pid)
            except ProcessLookupError:
                pass
    _write(control, value)


def _field(text: str, name: str) -> int | None:
    """Return the number behind `name` in lines of `name number`."""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return None


def _write(path: str, value: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, value.encode("ascii"))
    finally:
        os.close(file)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("ascii", "replace")
    except OSError:
        return ""
