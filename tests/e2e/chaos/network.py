"""A network of its own for each daemon: namespaces joined to the master's by links that can be cut.

Namespaces are held by processes that end with this one, so nothing of them has a name on the machine,
and nothing is left of them whatever happens here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import Any, Final, Literal

from edgerm_core.testing.processes import gone_after

Direction = Literal["both", "to-master", "from-master"]

HOLD_S: Final = 60.0
PORT: Final = 7070
PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin"
PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "flock": "util-linux"}
"""What is needed, with Debian's package that has it."""


def missing() -> str:
    """Return what this machine lacks, as a sentence; empty: nothing."""
    lacking = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=PATH)})
    return f"tests on links that are cut need: apt-get install {' '.join(lacking)}" if lacking else ""


class Network:
    """One namespace for the master, and one for each peer, a link away. Needs root.

    Packets are dropped where they arrive, so that whoever sends them learns nothing of it.
    """

    def __init__(self) -> None:
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._hold("master")

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _hold(self, name: str) -> None:
        # The signal comes when the thread that started it ends: also if this process is killed.
        held = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity")
        holder = self._holders[name] = subprocess.Popen(held, stdin=subprocess.DEVNULL)
        here = _namespace("self")

        def waiting() -> dict[Any, str]:
            with contextlib.suppress(OSError):
                if _namespace(holder.pid) != here:
                    return {}
            return {holder.pid: "no namespace yet"}

        assert not gone_after(HOLD_S, waiting), "unshare made no namespace"
        self._run(name, "ip link set lo up")

    def within(self, name: str) -> list[str]:
        """Return what to put before a command so that it runs in the namespace of `name`.

        Unlike `ip netns exec` it leaves the mounts alone: /sys keeps its control groups.
        """
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net"]

    def add(self, name: str) -> None:
        """Make a peer's namespace and its link."""
        number = len(self._holders)
        self._hold(name)
        ends = f"ip link add to-{name} type veth peer name eth0 netns {self._holders[name].pid}"
        self._run("master", ends)
        for where, device, host in (("master", f"to-{name}", 1), (name, "eth0", 2)):
            self._run(where, f"ip address add 10.99.{number}.{host}/24 dev {device}")
            self._run(where, f"ip link set {device} up")
        for where in ("master", name):
            self._run(where, "nft add table inet cut")
            self._run(where, f"nft add chain inet cut {name} {{ type filter hook input priority 0 ; }}")

    def url(self, name: str) -> str:
        """Return where the peer finds the master."""
        number = list(self._holders).index(name)
        return f"ws://10.99.{number}.1:{PORT}"

    def cut(self, name: str, direction: Direction = "both") -> None:
        """Let nothing through any more, both ways or one way."""
        if direction in ("both", "to-master"):
            self._run("master", f"nft add rule inet cut {name} iifname to-{name} drop")
        if direction in ("both", "from-master"):
            self._run(name, f"nft add rule inet cut {name} iifname eth0 drop")

    def heal(self, name: str) -> None:
        """Let everything through again. Idempotent."""
        for where in ("master", name):
            self._run(where, f"nft flush chain inet cut {name}")

    def _run(self, name: str, command: str) -> None:
        done = subprocess.run(
            [*self.within(name), *command.split()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": PATH},
            check=False,
        )
        assert done.returncode == 0, (name, command, done.stderr)


def _namespace(process: int | str) -> str:
    return os.readlink(f"/proc/{process}/ns/net")
