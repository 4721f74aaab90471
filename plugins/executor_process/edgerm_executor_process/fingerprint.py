"""What the process executor can do on this machine."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from edgerm_core.agents import Fingerprint
from edgerm_core.cgroups import Cgroups

NAME = "process"


def fingerprint_process(found: Cgroups, base_dir: Path) -> Fingerprint:
    """Return the fingerprint: healthy wherever Linux runs and `base_dir` can be written.

    Parameters:
        found: what control groups enforce here.
        base_dir: the executor's directory.
    """
    problem = _problem(base_dir)
    return Fingerprint(
        name=NAME,
        version=f"{platform.system()} {platform.release()}",
        healthy=not problem,
        problem=problem,
        capabilities={
            "cpu_limit": found.cpu.enforced,
            "mem_limit": found.memory.enforced,
            "pids_limit": found.pids.enforced,
            "signals": True,
            "survives_agent_restart": True,
            "logs": True,
            "results": True,
        },
        attributes={"cgroups": found.version, "shell": Path("/bin/sh").exists()},
    )


def _problem(base_dir: Path) -> str:
    if not sys.platform.startswith("linux"):
        return f"tasks can be run as processes on Linux only, and this is {platform.system()}"
    existing = base_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} is not writable: set state_dir in [executor.process], or its owner"
    return ""
