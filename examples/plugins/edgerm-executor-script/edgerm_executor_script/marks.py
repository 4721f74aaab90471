"""Processes by a mark in their environment, which children inherit wherever they go.

The mark of a run is `<agent>.<run>`: so the runs of this agent can be told from those of others.
"""

from __future__ import annotations

import hashlib
import os
import signal
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

VARIABLE = "EDGERM_SCRIPT_RUN"


def agent_mark(data_dir: str) -> str:
    """Return what the marks of all runs of an agent begin with."""
    return hashlib.sha256(data_dir.encode()).hexdigest()[:16]


def new_mark(agent: str) -> str:
    """Return a mark that no other run has."""
    return f"{agent}.{uuid.uuid4().hex}"


def marked(prefix: str, but: Iterable[str] = ()) -> list[int]:
    """Return the live processes whose mark begins so, except those with one of the marks `but`.

    Reads /proc: some milliseconds on a small machine.
    """
    wanted = f"{VARIABLE}={prefix}".encode()
    spared = {f"{VARIABLE}={mark}".encode() for mark in but}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # It has ended, or is somebody else's.
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(wanted) and variable not in spared:
                        found.append(int(entry.name))
    return found


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes; those that have ended are none the worse."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
