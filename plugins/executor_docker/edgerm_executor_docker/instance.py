"""Which run of an engine answers, on which boot of the machine.

Containers end with an engine or a machine that is restarted, and then look as if they had ended by
themselves. Times do not tell: a machine without a clock of its own starts in the past, and an engine notes
ends that it did not see when it is back.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from docker import APIClient

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""random(4): another one after each boot."""

PEER: Final = struct.Struct("3i")
"""Process, user and group behind a Unix socket, unix(7)."""

ACTIVATOR: Final = "systemd"
"""Holds a socket for an engine (docker.socket), and stays when the engine goes."""


def boot_id() -> str:
    """Return which boot of the machine this is; empty where that cannot be known. Blocking."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def ask_instance(client: APIClient, connection: socket.socket) -> str:
    """Return which run of an engine answers; empty where that cannot be known. Blocking.

    Docker makes its default network anew whenever it starts and takes over no containers. Where it has
    none, it is the process that listens.

    Parameters:
        connection: to the engine's socket.
    """
    import docker.errors

    with contextlib.suppress(docker.errors.APIError):
        return str(client.inspect_network("bridge")["Id"])
    return peer_instance(connection)


def peer_instance(connection: socket.socket) -> str:
    """Return process and start of whoever made the socket; empty if that is not the engine, or hidden."""
    pid = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[0]
    try:
        # proc_pid_stat(5), field 22; a name may hold spaces and brackets.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        name, _, rest = stat.partition("(")[2].rpartition(")")
        return "" if name == ACTIVATOR else f"{pid}.{rest.split()[19]}"
    except (OSError, IndexError):
        return ""


def why_ended(boot: str, engine: str, boot_now: str, engine_now: str, survives_restart: bool) -> str:
    """Return what has ended a container that runs no more; empty: nothing but itself.

    Parameters:
        boot, engine: under which it was started. Empty: nobody knows, which counts as another engine.
        survives_restart: whether containers go on while the engine is restarted.
    """
    if boot and boot_now and boot != boot_now:
        return "the machine was restarted, and ended it"
    if not survives_restart and not (engine and engine == engine_now):
        return "the engine was restarted, and ended it"
    return ""
