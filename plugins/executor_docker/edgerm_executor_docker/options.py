"""What a task may ask of a container: the options of an implementation, checked by themselves. No I/O."""

from __future__ import annotations

import re
import signal
from typing import Annotated, Final

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.tasks import Implementation
from edgerm_executor_docker.config import PullPolicy
from edgerm_executor_docker.image_name import parse_image_name

OWN_LABELS: Final = "edgerm."
"""Labels that begin so say which agent a container belongs to."""

MAX_PIDS: Final = 1_000_000
MAX_ULIMIT: Final = 1 << 62
MAX_ENTRIES: Final = 64
"""Of each list and table below: no honest task has more, and each costs the engine something."""

_PORT: Final = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_ULIMIT: Final = re.compile(r"[a-z]{2,16}")
_CAPABILITY: Final = re.compile(r"(?:CAP_)?([A-Z_]{3,32})")

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


class Mount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory or file of the machine.

    Attributes:
        host: its path there; must be among what the operator allows.
        path: where the task sees it.
        read_only: whether writing is refused.
    """

    host: str
    path: str
    read_only: bool = True


class DockerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of an implementation for `docker`. The README has them as a table.

    Attributes:
        image: its name, such as `busybox:1.36`, or its id.
        entrypoint: instead of the image's.
        working_dir: instead of the image's.
        user: instead of the image's: name or number, and a group behind a colon.
        network: `none`, `bridge` or another one that the operator allows. None: `bridge` for a task with
            `ports`, else `none`.
        ports: container port to the index of a granted port, `{"8080": 0, "53/udp": 1}`; a list gives
            the granted ports in order.
        read_only: whether the container's own files cannot be written.
        tmpfs: path to MiB of a file system in memory.
        ulimits: name to limit, or to soft and hard limit, as in setrlimit(2) in lower case: `nofile`.
        shm_mib: size of /dev/shm.
        stop_signal: what asks it to end, such as `SIGINT`; empty: the image's, else SIGTERM.
        pull: when the image is fetched; None: as the operator has set.
        mounts: what it sees of the machine's files.
        devices: paths in /dev; those of granted devices are there without asking.
        cap_add: capabilities, among those the operator allows.
        labels: for people and other programs.
        init: whether a small init is process 1: it passes signals on and reaps zombies.
        pids_limit: most processes and threads; None: the operator's default.
    """

    image: str
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    network: str | None = None
    ports: dict[str, int] | tuple[int | str, ...] = ()
    read_only: bool = False
    tmpfs: dict[str, Positive] = {}
    ulimits: dict[str, int | tuple[int, ...]] = {}
    shm_mib: Positive | None = None
    stop_signal: str = ""
    pull: PullPolicy | None = None
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    init: bool = True
    pids_limit: int | None = None


def read_options(task: str, implementation: Implementation) -> DockerOptions:
    """Return the checked options of a task.

    Parameters:
        task: its name, for sentences.

    Raises:
        SpecError: naming the option and what was expected.
    """
    raw = implementation.options
    known = DockerOptions.__struct_fields__
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise SpecError(
            f"task {task}: executor docker has no option {unknown[0][:40]!r}; known are {', '.join(known)}"
        )
    if "image" not in raw:
        raise SpecError(f'task {task}: executor docker needs the option image, such as "busybox:1.36"')
    try:
        options = msgspec.convert(raw, DockerOptions)
        _check(options)
    except (msgspec.ValidationError, SpecError) as error:
        raise SpecError(f"task {task}: options of executor docker: {error}") from error
    for argument in (*implementation.args, *(options.entrypoint or ())):
        if "\0" in str(argument):
            raise SpecError(f"task {task}: an argument holds a NUL, which no process can be given")
    return options


def _check(options: DockerOptions) -> None:
    parse_image_name(options.image)
    for field in ("ports", "tmpfs", "ulimits", "mounts", "devices", "cap_add", "labels"):
        if len(getattr(options, field)) > MAX_ENTRIES:
            raise SpecError(f"{field} has more than {MAX_ENTRIES} entries")
    for field, paths in (
        ("tmpfs", options.tmpfs),
        ("mounts", [mount.path for mount in options.mounts]),
        ("working_dir", [options.working_dir] if options.working_dir else []),
    ):
        for path in paths:
            check_inner_path(field, path)
    read_ports(options)
    for name, limits in options.ulimits.items():
        if not _ULIMIT.fullmatch(name):
            raise SpecError(f"ulimits: {name[:40]!r} is not a limit's name: expected one such as nofile")
        soft_and_hard(name, limits)
    if options.stop_signal:
        signal_number(options.stop_signal)
    for capability in options.cap_add:
        capability_name(capability)
    for label in options.labels:
        if not label or label.startswith(OWN_LABELS):
            raise SpecError(
                f"labels: {label[:40]!r} is reserved: labels must not begin with {OWN_LABELS!r}"
            )
    if options.pids_limit is not None and not 1 <= options.pids_limit <= MAX_PIDS:
        raise SpecError(f"pids_limit must be 1 to {MAX_PIDS}, not {options.pids_limit}")
    if options.network == "":
        raise SpecError("network is empty: expected none, bridge or another one")


def check_inner_path(what: str, path: str) -> None:
    """Check a path inside the container.

    Raises:
        SpecError: if it is not absolute, is the root, climbs, or holds what the engine would split at.
    """
    parts = path.split("/")
    if not path.startswith("/") or not path.strip("/") or ".." in parts or ":" in path or "\0" in path:
        raise SpecError(
            f"{what}: {path[:80]!r} must be an absolute path without '..' and ':', not the root"
        )


def read_ports(options: DockerOptions) -> list[tuple[int, str, int]]:
    """Return (container port, protocol, index of the granted port) for each.

    Raises:
        SpecError: if one is no port, the index is below 0, or two want the same granted port.
    """
    pairs: list[tuple[str, int]]
    if isinstance(options.ports, dict):
        pairs = list(options.ports.items())
    else:
        pairs = [(str(port), index) for index, port in enumerate(options.ports)]
    found: list[tuple[int, str, int]] = []
    taken: set[tuple[str, int]] = set()
    for text, index in pairs:
        match = _PORT.fullmatch(text)
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise SpecError(f'ports: {text[:40]!r} is not a port: expected one such as "8080" or "53/udp"')
        if index < 0:
            raise SpecError(f"ports: {text} wants granted port number {index}; they count from 0")
        protocol = match[2] or "tcp"
        if (protocol, index) in taken:
            raise SpecError(
                f"ports: {text} wants granted port number {index}, as another one does: one {protocol} "
                f"port of the machine leads to one of the container"
            )
        taken.add((protocol, index))
        found.append((int(match[1]), protocol, index))
    return found


def soft_and_hard(name: str, limits: int | tuple[int, ...]) -> tuple[int, int]:
    """Return a ulimit's soft and hard limit; -1: none.

    Raises:
        SpecError: if they make no sense.
    """
    # Checked here and not by the type: msgspec 0.22 damages memory over a union of a bounded int and a
    # tuple of fixed length.
    soft, hard = limits if isinstance(limits, tuple) and len(limits) == 2 else (limits, limits)
    if not isinstance(soft, int) or not isinstance(hard, int) or min(soft, hard) < -1:
        raise SpecError(f"ulimits: {name} needs a number, or a soft and a hard one; -1 is no limit")
    if max(soft, hard) > MAX_ULIMIT or soft > hard >= 0 or (soft == -1 != hard):
        raise SpecError(f"ulimits: {name} has a soft limit above its hard one, or one above 2^62")
    return soft, hard


def signal_number(name: str) -> int:
    """Return the number of `SIGTERM`, `TERM` or `15`.

    Raises:
        SpecError: if there is no such signal.
    """
    if name.isdecimal() and 1 <= int(name) <= 64:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    try:
        return signal.Signals[full].value
    except KeyError:
        raise SpecError(f"stop_signal: there is no signal {name[:20]!r}") from None


def capability_name(text: str) -> str:
    """Return `NET_ADMIN` for `NET_ADMIN` or `CAP_NET_ADMIN`.

    Raises:
        SpecError: if it is no name of one. `ALL` is none.
    """
    match = _CAPABILITY.fullmatch(text.upper())
    if match is None or match[1] == "ALL":
        raise SpecError(f"cap_add: {text[:40]!r} is not a capability: expected one such as NET_ADMIN")
    return match[1]
