"""How many processes the kernel has killed for memory. For Podman, which does not always tell."""

from __future__ import annotations

from pathlib import Path
from typing import Final

VMSTAT: Final = Path("/proc/vmstat")


def oom_kills(vmstat: Path = VMSTAT) -> int:
    """Return the kernel's count since it was booted; 0 where it does not count (before Linux 4.13)."""
    try:
        for line in vmstat.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
