"""Real container engines for tests: Docker's and Podman's, each private, none of which leaves anything.

Each engine has a directory, sockets, a bridge, a subnet and control groups of its own, so that several
of them, and whatever engine the machine itself has, do not disturb one another. Images are made of
Debian's busybox-static; no registry is asked for anything.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import pytest

from edgerm_core.testing.processes import gone_after, processes_of

IMAGE: Final = "edgerm-test/busybox:1"
"""All of busybox's commands; its own command is `sh -c 'echo hello from the image'`."""

IMAGE_WITHOUT_COMMAND: Final = "edgerm-test/nothing:1"
"""The same files, and neither a command nor an entry point."""

PACKAGES: Final = "docker.io podman netavark busybox-static iproute2"
SETUP: Final = f"apt-get install -y --no-install-recommends {PACKAGES}, and run the tests as root"

READY_S: Final = 60.0
STOP_S: Final = 60.0
"""dockerd itself gives its containers up to 15 s."""

CALL_S: Final = 120.0
POLL_S: Final = 0.02

PLACES: Final = Path("/tmp")
"""Where engines' directories are: not pytest's, since the path of a Unix socket has at most 107 bytes."""

ENGINES: Final = 256
"""At most so many at once: each has a /24 of 198.18.0.0/16, which is set aside for tests (RFC 2544)."""

UNOWNED_S: Final = 60.0
"""A directory without an owner for so long was left by somebody who died while making it."""

CGROUPS: Final = Path("/sys/fs/cgroup")
NOBODY: Final = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"


ACTIVATE: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a program with a socket that is held for it, as systemd does."""


class EngineMissing(Exception):
    """This machine cannot run the engine; the sentence says what to install."""


def program(name: str) -> str:
    """Return where a program is.

    Raises:
        EngineMissing: if it is not installed.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise EngineMissing(f"there is no {name} here: {SETUP}")
    return path


def files_of_busybox() -> bytes:
    """Return a root file system as a tar archive: busybox, a link for each of its commands, two users."""
    busybox = Path(program("busybox"))
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def add(
            name: str, mode: int, kind: bytes = tarfile.DIRTYPE, link: str = "", data: bytes = b""
        ) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
            tar.addfile(entry, io.BytesIO(data))

        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)):
            add(directory, mode)
        add("etc/passwd", 0o644, tarfile.REGTYPE, data=NOBODY.encode())
        add("bin/busybox", 0o755, tarfile.REGTYPE, data=busybox.read_bytes())
        for command in listed.split():
            if command != "busybox":
                add(f"bin/{command}", 0o777, tarfile.SYMTYPE, "busybox")
    return archive.getvalue()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Engine(abc.ABC):
    """One engine and what belongs to it. `start` it, `close` it; in between it may stop and start again.

    Attributes:
        directory: everything it has on disk; its path is short, since sockets' paths must be.
        socket: where its API is.
        name: of its directory, its bridge and its control group.
        subnet: the first three numbers of its containers' addresses.
        held: sockets that its processes are given.
    """

    kind: str

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise EngineMissing(f"only root can start engines: {SETUP}")
        program("ip")
        clear_abandoned()
        number = claim()
        self.name = name_of(number)
        self.subnet = subnet_of(number)
        self.directory = PLACES / self.name
        self.socket = self.directory / "engine.sock"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.held: tuple[int, ...] = ()

    @property
    def url(self) -> str:
        """For clients: `unix://…`."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Of the process that answers at the socket."""
        return self.processes[-1].pid

    # --- its life -----------------------------------------------------------------------------

    @abc.abstractmethod
    def launch(self) -> None:
        """Start its processes, the one that answers last."""

    def start(self) -> None:
        """Start it, wait until it answers, and give it the images if it has none.

        Raises:
            AssertionError: if it does not answer in time; with the end of its log.
        """
        self.launch()
        end = time.monotonic() + READY_S
        while not self.answers():
            if self.processes[-1].poll() is not None or time.monotonic() > end:
                ended = self.processes[-1].poll()
                raise AssertionError(f"{self.kind} does not start ({ended}):\n{self.log()[-4000:]}")
            time.sleep(POLL_S)
        if not self.call("GET", "/images/json"):
            self.import_image(IMAGE, '["sh", "-c", "echo hello from the image"]')
            self.import_image(IMAGE_WITHOUT_COMMAND, "")

    def answers(self) -> bool:
        try:
            return self.request("GET", "/_ping", timeout_s=2.0)[0] == 200
        except OSError:
            return False

    def stop(self) -> None:
        """Stop what answers, in good order. What it does to its containers is its own affair."""
        process = self.processes.pop()
        process.terminate()
        process.wait(STOP_S)

    def kill(self) -> None:
        """End what answers as a crash would."""
        process = self.processes.pop()
        process.kill()
        process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Remove its containers, end its processes, remove all it had. Idempotent."""
        if self.processes and self.answers():
            with contextlib.suppress(OSError, AssertionError):
                self.remove_all()
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        clear(self.directory)

    def log(self) -> str:
        """Return what its processes have written."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.directory.glob("*.log")))

    def spawn(self, name: str, *command: str, **environment: str) -> None:
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    pass_fds=self.held,
                    env={**os.environ, **environment, "TMPDIR": str(self.directory)},
                )
            )

    # --- its API ------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        raw: bytes | None = None,
        timeout_s: float = CALL_S,
    ) -> tuple[int, bytes]:
        """Call the API; return status and answer.

        Parameters:
            body: sent as JSON.
            raw: a tar archive, sent as it is.
        """
        connection = UnixConnection(self.socket, timeout_s)
        kind = "application/json" if raw is None else "application/x-tar"
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        target = f"/v1.40{path}" + (f"?{urlencode(query)}" if query else "")
        with contextlib.closing(connection):
            connection.request(method, target, body=data, headers={"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()

    def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Call the API, which must succeed; return its decoded answer, None if it is empty."""
        status, answer = self.request(method, path, body, query=query)
        assert status < 400, (method, path, status, answer)
        return json.loads(answer) if answer.strip() else None

    def containers(self) -> list[dict[str, Any]]:
        """Return all of them, also those that have ended."""
        found: list[dict[str, Any]] = self.call("GET", "/containers/json", all="true")
        return found

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/containers/{container}/json")
        return found

    def run(self, name: str, *command: str, labels: dict[str, str] | None = None) -> str:
        """Start a container that belongs to nobody in particular; return its id."""
        body = {"Image": IMAGE, "Cmd": list(command), "Labels": labels or {}}
        container: str = self.call("POST", "/containers/create", body, name=name)["Id"]
        self.call("POST", f"/containers/{container}/start")
        return container

    def remove(self, container: str) -> None:
        """Remove it, also if it runs; it need not be there."""
        status, answer = self.request(
            "DELETE", f"/containers/{container}", query={"force": "true", "v": "true"}
        )
        assert status < 400 or status == 404, answer

    def remove_all(self) -> None:
        for container in self.containers():
            self.remove(container["Id"])

    def import_image(self, name: str, command: str) -> None:
        """Make an image of busybox's files.

        Parameters:
            command: what comes after CMD, in JSON; empty: the image has none.
        """
        repo, _, tag = name.partition(":")
        query = {"fromSrc": "-", "repo": repo} | ({"changes": f"CMD {command}"} if command else {})
        status, answer = self.request("POST", "/images/create", raw=files_of_busybox(), query=query)
        assert status == 200, answer
        image = json.loads(answer.splitlines()[-1])["status"]
        # Not as a parameter of the import: Podman 4 takes none there.
        self.call("POST", f"/images/{image}/tag", repo=repo, tag=tag)


class DockerEngine(Engine):
    """dockerd, and a containerd for it alone.

    Parameters:
        live_restore: containers go on while dockerd is away, as the daemon's option of that name says.
        activated: the socket is held for dockerd, as systemd does with docker.socket: it stays, and who
            connects while dockerd is away waits. sd_listen_fds(3).
    """

    kind = "dockerd"

    def __init__(self, *, live_restore: bool = False, activated: bool = False) -> None:
        self.dockerd, self.containerd = program("dockerd"), program("containerd")
        super().__init__()
        self.listener: socket.socket | None = None
        if activated:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(self.socket))
            self.listener.listen()
            self.held = (self.listener.fileno(),)
        at = str(self.directory)
        (self.directory / "containerd.toml").write_text(
            f'version = 2\nroot = "{at}/containerd"\nstate = "{at}/containerd-state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{at}/containerd.sock"\n'
        )
        # Published ports are served by docker-proxy: dockerd would rewrite the machine's packet filter.
        settings = {
            "bridge": self.name,
            "cgroup-parent": f"/{self.name}",
            "containerd": f"{at}/containerd.sock",
            "data-root": f"{at}/data",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "exec-root": f"{at}/exec",
            "hosts": ["fd://" if activated else self.url],
            "ip-forward": False,
            "ip-masq": False,
            "iptables": False,
            "live-restore": live_restore,
            "pidfile": f"{at}/dockerd.pid",
            "shutdown-timeout": 5,
        }
        (self.directory / "daemon.json").write_text(json.dumps(settings))

    def make_bridge(self) -> None:
        """Make its bridge, if it is not there.

        Raises:
            EngineMissing: if none can be made here.
        """
        if Path(f"/sys/class/net/{self.name}").exists():
            return
        for step in (
            ("link", "add", self.name, "type", "bridge"),
            ("address", "add", f"{self.subnet}.1/24", "dev", self.name),
            ("link", "set", self.name, "up"),
        ):
            done = subprocess.run([program("ip"), *step], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EngineMissing(f"no network bridge can be made here: {done.stderr.strip()}")

    def launch(self) -> None:
        if not self.processes:
            self.make_bridge()
            self.spawn("containerd", self.containerd, "--config", f"{self.directory}/containerd.toml")
        activate = () if self.listener is None else (sys.executable, "-c", ACTIVATE, *map(str, self.held))
        self.spawn("dockerd", *activate, self.dockerd, "--config-file", f"{self.directory}/daemon.json")

    def crash(self) -> None:
        """End it and all that it runs at once, as a machine without power does."""
        self.kill()
        running = processes_of(self.directory) | processes_in(cgroups_of(self.directory))
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.processes:
            self.processes.pop().wait()

    def close(self) -> None:
        super().close()
        if self.listener is not None:
            self.listener.close()


class PodmanEngine(Engine):
    """`podman system service`, which answers for containers that do not depend on it.

    Its network rules go with its containers; the empty chains that any use of Podman leaves stay.
    """

    kind = "podman"

    def __init__(self) -> None:
        program("podman")
        super().__init__()
        # Podman makes this bridge with its first container and removes it with the last.
        network = {
            "name": self.name,
            "id": hashlib.sha256(self.name.encode()).hexdigest(),
            "driver": "bridge",
            "network_interface": self.name,
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": f"{self.subnet}.0/24", "gateway": f"{self.subnet}.1"}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
        (self.directory / "networks").mkdir()
        (self.directory / "networks" / f"{self.name}.json").write_text(json.dumps(network))
        # By itself Podman raises limits, which not every root may do.
        (self.directory / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{self.directory}/networks"\n'
            f'default_network = "{self.name}"\n'
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )

    def launch(self) -> None:
        service = ("--log-level", "info", "system", "service", "--time", "0", self.url)
        command, environment = podman_at(self.directory)
        self.spawn("podman", *command, *service, **environment)


def podman_at(directory: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment for Podman's files in a directory."""
    places = {"--root": "root", "--runroot": "run", "--tmpdir": "tmp"}
    command = [program("podman"), *(f"{option}={directory}/{name}" for option, name in places.items())]
    return command, {"CONTAINERS_CONF": f"{directory}/containers.conf"}


# --- leaving nothing ----------------------------------------------------------------------------


def name_of(number: int) -> str:
    # Of one length, so that no name is part of another.
    return f"edgerm-e{number:03}"


def subnet_of(number: int) -> str:
    return f"198.18.{number}"


def claim() -> int:
    """Make the directory of a number that no engine has; return the number."""
    for number in range(ENGINES):
        directory = PLACES / name_of(number)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            # Others read it at any time: it is there as a whole or not at all.
            (directory / "owner.new").write_text(f"{os.getpid()} {started_at(os.getpid())}")
            (directory / "owner.new").rename(directory / "owner")
            return number
    raise AssertionError(f"{ENGINES} engines are there already: {PLACES / name_of(0)} and so on")


def started_at(pid: int) -> str:
    """Return when a process started, in the kernel's own words; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def clear_abandoned() -> None:
    """Remove the engines of test runs that were killed."""
    for number in range(ENGINES):
        directory = PLACES / name_of(number)
        try:
            pid, _, started = (directory / "owner").read_text().partition(" ")
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - directory.stat().st_mtime > UNOWNED_S:
                    clear(directory)
        else:
            if started_at(int(pid)) != started:
                clear(directory)


def clear(directory: Path) -> None:
    """End what still runs of an engine, and remove all that it had on this machine. Idempotent."""

    def running() -> dict[Any, str]:
        return processes_of(directory) | processes_in(cgroups_of(directory))

    if (directory / "containers.conf").exists():
        # Podman needs no service for this, and knows which network rules go with its containers.
        command, environment = podman_at(directory)
        remove = [*command, "rm", "--all", "--force", "--time", "0"]
        subprocess.run(
            remove, check=False, capture_output=True, timeout=STOP_S, env=os.environ | environment
        )
    for _ in range(100):  # Who starts others may be quicker than one round.
        for pid in (left := running()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        gone_after(1.0, running)
    for mount in reversed(mounts_below(directory)):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    if Path(f"/sys/class/net/{directory.name}").exists():
        subprocess.run([program("ip"), "link", "delete", directory.name], check=False, capture_output=True)
    for cgroup in sorted(cgroups_of(directory), reverse=True):
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def left_of(directory: Path) -> dict[Any, str]:
    """Return what an engine has left on this machine."""
    left: dict[Any, str] = processes_of(directory) | processes_in(cgroups_of(directory))
    left |= dict.fromkeys(mounts_below(directory), "mounted")
    left |= dict.fromkeys(map(str, cgroups_of(directory)), "control group")
    left |= dict.fromkeys(rules_of(directory), "network rule")
    places = (directory, Path(f"/sys/class/net/{directory.name}"))
    return left | {str(place): "there" for place in places if place.exists()}


def cgroups_of(directory: Path) -> list[Path]:
    """Return the control groups of an engine's containers, in all hierarchies, with those below them."""
    names = {directory.name}
    for container in directory.glob("root/overlay-containers/*/userdata"):
        names |= {f"libpod-{container.parent.name}", f"libpod-conmon-{container.parent.name}"}
    found = []
    for root, children, _ in os.walk(CGROUPS):
        for name in names.intersection(children):
            # Not `rglob`: it raises where a group goes while it is looked at.
            found += [Path(below) for below, _, _ in os.walk(Path(root, name))]
    return found


def rules_of(directory: Path) -> list[str]:
    """Return the packet filter's rules about an engine's subnet."""
    with contextlib.suppress(EngineMissing):
        rules = subprocess.run(
            [program("iptables-save")], capture_output=True, text=True, check=True
        ).stdout
        subnet = subnet_of(int(directory.name[-3:]))
        return [rule for rule in rules.splitlines() if f" {subnet}." in rule]
    return []


def processes_in(cgroups: list[Path]) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for cgroup in cgroups:
        with contextlib.suppress(OSError):
            found |= {
                int(p): str(cgroup) for p in (cgroup / "cgroup.procs").read_text().split() if p != "0"
            }
    return found


def mounts_below(directory: Path) -> list[str]:
    """Return the mounts in a directory, in the order in which they were made."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [path for line in lines if (path := line.split()[4]).startswith(f"{directory}/")]


# --- for fixtures -------------------------------------------------------------------------------

E = TypeVar("E", bound=Engine)


@contextlib.contextmanager
def running(make: Callable[[], E]) -> Iterator[E]:
    """An engine that has started, and is gone after the block.

    Where it cannot be, tests that need it are left out; with CI in the environment they fail.
    """
    try:
        engine = make()
    except EngineMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(f"tests on real container engines: {missing}")
        pytest.skip(f"left out: tests on real container engines: {missing}")
    try:
        engine.start()
        yield engine
    finally:
        engine.close()
