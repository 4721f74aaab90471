"""What `edgerm doctor` looks at. Each check returns what it found and what would mend it; none raises."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from edgerm_core.errors import EdgermError
from edgerm_core.plugins import KNOWN, Plugins

Status = Literal["ok", "warn", "missing"]

SANE_YEAR: Final = 2025
"""edgerm is younger than this year; a clock before it starts from its battery's grave."""

LOW_DISK_BYTES: Final = 256 << 20
"""Below it, one blob of the largest size could fill the disk."""

TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised to a reliable server."""


class Check(msgspec.Struct, frozen=True):
    """One line of `edgerm doctor`.

    Attributes:
        name: what `--require` calls it.
        status: `ok`; `warn`: works, with a drawback; `missing`: does not work here.
        detail: what was found.
        fix: what to do about it; empty when ok.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Check that Python is new enough."""
    text = ".".join(map(str, version))
    if version >= (3, 11):
        return Check("python", "ok", text)
    return Check("python", "missing", text, "edgerm needs Python 3.11 or newer; Debian 12 has it")


def check_clock(now: float, sync_state: int | None) -> Check:
    """Check that the clock is plausible and kept right.

    Parameters:
        now: Unix time in seconds.
        sync_state: what adjtimex(2) returned; None: not known here.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if time.gmtime(now).tm_year < SANE_YEAR:
        return Check(
            "clock", "missing", stamp, "set the clock (date -s), and install systemd-timesyncd or chrony"
        )
    if sync_state == TIME_ERROR:
        fix = "times shown may be off; install systemd-timesyncd or chrony (leases do not depend on it)"
        return Check("clock", "warn", f"{stamp}, not synchronised", fix)
    return Check("clock", "ok", stamp + (", synchronised" if sync_state is not None else ""))


def read_sync_state() -> int | None:
    """Return what adjtimex(2) says about the clock; None where there is none."""
    try:
        # struct timex is about 200 bytes; modes = 0 only reads.
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)))
    except (OSError, AttributeError):
        return None


def check_disk(name: str, directory: Path) -> Check:
    """Check that a data directory can be written, or made, and has room."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        fix = f"make {directory} writable for user {os.geteuid()}, or name another one with --data-dir"
        return Check(name, "missing", f"{existing} cannot be written", fix)
    free = shutil.disk_usage(existing).free
    detail = f"{directory}, {free >> 20} MiB free"
    if free < LOW_DISK_BYTES:
        return Check(
            name, "warn", detail, f"free some space: less than {LOW_DISK_BYTES >> 20} MiB are left"
        )
    return Check(name, "ok", detail)


def check_transports(plugins: Plugins) -> Iterator[Check]:
    """Check that each installed transport can be created, and name known ones that are absent."""
    for name in plugins.names("transport"):
        schemes = " ".join(f"{scheme}://" for scheme in sorted(plugins.provider("transport", name).schemes))
        try:
            plugins.create("transport", name)
        except EdgermError as error:
            yield Check(f"transport-{name}", "missing", str(error), "see edgerm plugins")
        else:
            yield Check(f"transport-{name}", "ok", schemes)
    yield from _absent("transport", plugins)


async def check_executors(plugins: Plugins) -> list[Check]:
    """Ask each installed executor what works here, and name known ones that are absent."""
    checks: list[Check] = []
    for name in plugins.names("executor"):
        label = f"executor-{name}"
        try:
            executor = plugins.create("executor", name)
        except EdgermError as error:
            checks.append(Check(label, "missing", str(error), "see edgerm plugins"))
            continue
        try:
            fingerprint = await executor.fingerprint()
        finally:
            await executor.close()
        lacks = [key for key, there in fingerprint.capabilities.items() if not there]
        if not fingerprint.healthy:
            checks.append(Check(label, "missing", fingerprint.version or "unhealthy", fingerprint.problem))
        else:
            without = f" (without {', '.join(sorted(lacks))})" if lacks else ""
            checks.append(Check(label, "ok", (fingerprint.version or "usable") + without))
    return checks + list(_absent("executor", plugins))


def _absent(kind: str, plugins: Plugins) -> Iterator[Check]:
    installed = {info.distribution for info in plugins.infos}
    for (known_kind, name), distribution in KNOWN.items():
        if known_kind == kind and distribution not in installed and name not in plugins.names(kind):
            installed.add(distribution)
            yield Check(
                f"{kind}-{name}", "missing", "not installed", f"if needed: pip install {distribution}"
            )
    for info in plugins.infos:
        if info.status == "broken" and info.name.startswith(f"{kind}-"):
            yield Check(info.name, "missing", "broken", info.problem)


def check_cgroups() -> list[Check]:
    """Look at what control groups can enforce here, and how."""
    from edgerm_core.cgroups import detect_cgroups

    found = detect_cgroups()
    version = Check("cgroups", "ok", found.version)
    if found.version == "none":
        version = Check("cgroups", "missing", "none", found.memory.problem)
    checks = [version]
    for name, enforcement in (("cpu", found.cpu), ("memory", found.memory), ("pids", found.pids)):
        if enforcement.enforced:
            checks.append(Check(f"cgroup-{name}", "ok", f"{enforcement.what} limits are enforced"))
        else:
            detail = f"no {enforcement.what} limits"
            checks.append(Check(f"cgroup-{name}", "missing", detail, enforcement.problem))
    return checks
