"""Task files: TOML text to task specs and the local files that are uploaded for them.

    [[task]]
    name = "analyse"
    resources = { cpus = 0.5, mem = "64MiB" }      # or the text "cpus:0.5;mem:64MiB"
    devices = [{ type = "camera", count = 1, constraints = ["resolution>=1080"] }]
    constraints = ["os==linux", "zone in a,b"]
    preferences = ["floor>=2", { constraint = "exists gpu.model", weight = 3.0 }]
    env = { MODE = "fast" }
    files = ["model.bin", { path = "bin/run.sh", source = "run.sh", executable = true }]
    volumes = [{ path = "data", name = "history" }]
    restart = { on = "failure", attempts = 3 }
    reschedule = { failures = 2 }
    disconnect = { lost_after_s = 60.0, replace = false }
    time_limit_s = 600
    kill_grace_s = 10
    instances = 4

    [[task.implementation]]                         # tried in the order in which they stand
    executor = "wasm"
    module = "analyse.wasm"                         # WebAssembly text, `.wat`, is compiled
    args = ["--fast"]
    options = { function = "analyse" }

Paths are relative to the task file. A key that is not known, a value of the wrong type and a file
that is not there are refused with the key's path, such as `task[0].implementation[1].module`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec

from edgerm_core.attributes import Constraint, Preference, parse_constraint
from edgerm_core.client.blobs import BlobSource
from edgerm_core.client.specs import Draft, compile_wat
from edgerm_core.config import explain_validation
from edgerm_core.errors import BlobError, ResourceError, SpecError
from edgerm_core.resources import DeviceRequest, ResourceRequest
from edgerm_core.tasks import (
    DisconnectPolicy,
    File,
    Implementation,
    ReschedulePolicy,
    RestartPolicy,
    TaskSpec,
    Volume,
    check_spec,
)

P = ParamSpec("P")
T = TypeVar("T")


class _Device(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    count: int = 1
    constraints: list[str] = []


class _Preference(msgspec.Struct, forbid_unknown_fields=True):
    constraint: str
    weight: float = 1.0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    path: str = ""
    executable: bool = False


class _Volume(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    name: str = ""
    read_only: bool = False


class _Restart(RestartPolicy, frozen=True, forbid_unknown_fields=True):
    pass


class _Reschedule(ReschedulePolicy, frozen=True, forbid_unknown_fields=True):
    pass


class _Disconnect(DisconnectPolicy, frozen=True, forbid_unknown_fields=True):
    pass


class _Implementation(msgspec.Struct, forbid_unknown_fields=True):
    executor: str
    module: str = ""
    args: list[str | int | float] = []
    options: dict[str, Any] = {}


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    implementation: list[_Implementation]
    resources: str | dict[str, Any] = ""
    devices: list[_Device] = []
    env: dict[str, str] = {}
    constraints: list[str] = []
    preferences: list[str | _Preference] = []
    files: list[str | _File] = []
    volumes: list[_Volume] = []
    restart: _Restart = _Restart()
    reschedule: _Reschedule = _Reschedule()
    disconnect: _Disconnect = _Disconnect()
    time_limit_s: float | None = None
    kill_grace_s: float = 5.0
    instances: int = 1


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    task: list[_Task]


def load_specfile(path: Path) -> list[Draft]:
    """Read a task file; return its tasks in order, each with the blobs it refers to.

    Raises:
        SpecError: if a file cannot be read, is not TOML, or a key is wrong, with the key's path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {_why(error)}") from error
    return parse_specfile(text, path.parent, str(path))


def parse_specfile(text: str, base: Path, where: str = "task file") -> list[Draft]:
    """Read the text of a task file.

    Parameters:
        base: the directory that paths in it are relative to.
        where: what error messages call the file.

    Raises:
        SpecError: as `load_specfile`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML: {error}") from error
    try:
        document = msgspec.convert(raw, _Document)
    except msgspec.ValidationError as error:
        key, problem = explain_validation(error)
        raise SpecError(f"{where}: {key}: {problem}" if key else f"{where}: {problem}") from error
    if not document.task:
        raise SpecError(f"{where}: task: expected at least one [[task]]")
    return [_draft(task, base, f"{where}: task[{index}]") for index, task in enumerate(document.task)]


def read_task(table: object, base: Path, where: str) -> Draft:
    """Read one task that is part of another file: a table with the keys of a `[[task]]`.

    Parameters:
        base: the directory that paths in it are relative to.
        where: what error messages call the table.

    Raises:
        SpecError: as `load_specfile`.
    """
    try:
        task = msgspec.convert(table, _Task)
    except msgspec.ValidationError as error:
        key, problem = explain_validation(error)
        raise SpecError(f"{where}.{key}: {problem}" if key else f"{where}: {problem}") from error
    return _draft(task, base, where)


def _draft(task: _Task, base: Path, where: str) -> Draft:
    devices = tuple(_device(device, f"{where}.devices[{n}]") for n, device in enumerate(task.devices))
    blobs: list[BlobSource] = []
    implementations: list[Implementation] = []
    for n, item in enumerate(task.implementation):
        if item.module:
            blobs.append(_at(f"{where}.implementation[{n}].module", _module, base / item.module))
        blob = blobs[-1].id if item.module else None
        implementations.append(Implementation(item.executor, blob, tuple(item.args), item.options))
    files: list[File] = []
    for n, entry in enumerate(task.files):
        file = _File(entry) if isinstance(entry, str) else entry
        blobs.append(_at(f"{where}.files[{n}]", BlobSource.of, base / file.source))
        files.append(File(file.path or file.source, blobs[-1].id, file.executable))
    spec = TaskSpec(
        name=task.name,
        implementations=tuple(implementations),
        resources=_at(f"{where}.resources", ResourceRequest.parse, task.resources, devices),
        env=task.env,
        constraints=_constraints(task.constraints, where),
        preferences=tuple(
            _preference(item, f"{where}.preferences[{n}]") for n, item in enumerate(task.preferences)
        ),
        files=tuple(files),
        volumes=tuple(Volume(volume.path, volume.name, volume.read_only) for volume in task.volumes),
        restart=_plain(task.restart, RestartPolicy),
        reschedule=_plain(task.reschedule, ReschedulePolicy),
        disconnect=_plain(task.disconnect, DisconnectPolicy),
        time_limit_s=task.time_limit_s,
        kill_grace_s=task.kill_grace_s,
        instances=task.instances,
    )
    _at(where, check_spec, spec)
    return Draft(spec, tuple(blobs))


def _module(path: Path) -> BlobSource:
    return BlobSource.of(compile_wat(path))


def _constraints(texts: list[str], where: str) -> tuple[Constraint, ...]:
    return tuple(_at(f"{where}.constraints[{n}]", parse_constraint, text) for n, text in enumerate(texts))


def _device(device: _Device, where: str) -> DeviceRequest:
    return _at(where, DeviceRequest, device.type, device.count, _constraints(device.constraints, where))


def _preference(item: str | _Preference, where: str) -> Preference:
    wanted = _Preference(item) if isinstance(item, str) else item
    return Preference(_at(where, parse_constraint, wanted.constraint), wanted.weight)


def _plain(policy: msgspec.Struct, wanted: type[T]) -> T:
    return wanted(**msgspec.structs.asdict(policy))


def _at(where: str, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `read(*args)` returns; its error gets the key's path in front."""
    try:
        return read(*args, **kwargs)
    except (SpecError, ResourceError, BlobError) as error:
        raise SpecError(f"{where}: {error}") from error


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
