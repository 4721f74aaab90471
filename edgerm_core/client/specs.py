"""Small builders that make task specs out of friendly arguments.

    task(process("echo", "hello"), cpus=0.1, mem="16MiB")
    task(wasm("filter.wasm", function="mean"), constraints=["zone==a"], instances=3)

`process`, `container` and `wasm` make one implementation; `task` makes the spec around one or several
of them. They remember the blobs that they refer to, so that submitting uploads them.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack

from edgerm_core.attributes import Constraint, Preference, parse_constraint
from edgerm_core.client.blobs import BlobSource
from edgerm_core.errors import SpecError
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

Content = bytes | str | Path
"""Bytes, or the path of a file."""

WASM_MAGIC: Final = b"\0asm"
MAX_NAME_CHARS: Final = 64


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One implementation and the blobs it refers to.

    Attributes:
        name: what a task made of it is called unless told otherwise.
    """

    implementation: Implementation
    name: str
    blobs: tuple[BlobSource, ...] = ()


@dataclasses.dataclass(frozen=True)
class Draft:
    """A task spec and the blobs it refers to, ready to be submitted."""

    spec: TaskSpec
    blobs: tuple[BlobSource, ...] = ()


class TaskOptions(TypedDict, total=False):
    """What `task` and `submit` take besides the implementations.

    name: for people; made from the first implementation if left out.
    cpus, mem, disk: amounts; `mem` and `disk` in MiB or with a unit, such as `"64MiB"`.
    resources: anything else, as text or table: `"ports:2;radio_bytes:4096"`, `{"ports": 2}`.
    devices: device types, such as `"camera"`, or requests with counts and constraints.
    env: environment variables.
    constraints: such as `"zone==a"`, `"floor>=2"`, `"exists gpu"`.
    preferences: constraints that would be nice, of weight 1, or `(constraint, weight)`.
    files: path in the working directory to content.
    volumes, reschedule, disconnect: as in TaskSpec.
    restart: a policy, or when to restart: `"never"`, `"failure"`, `"always"`.
    time_limit_s, kill_grace_s: seconds.
    instances: how many tasks to make.
    """

    name: str
    cpus: float | str
    mem: float | str
    disk: float | str
    resources: str | Mapping[str, object]
    devices: Iterable[str | DeviceRequest]
    env: Mapping[str, str]
    constraints: Iterable[str | Constraint]
    preferences: Iterable[str | Preference | tuple[str, float]]
    files: Mapping[str, Content]
    volumes: Iterable[Volume]
    restart: RestartPolicy | Literal["never", "failure", "always"]
    reschedule: ReschedulePolicy
    disconnect: DisconnectPolicy
    time_limit_s: float | None
    kill_grace_s: float
    instances: int


Submittable = Draft | TaskSpec | Recipe | Implementation | Sequence[Recipe | Implementation]
"""What `submit` takes."""


def process(*command: str) -> Recipe:
    """Return an implementation that runs a command of the agent's machine, without a shell.

    Raises:
        SpecError: if the command is empty.
    """
    if not command:
        raise SpecError("process() needs a command, such as process('echo', 'hello')")
    return Recipe(Implementation("process", args=command), _as_name(Path(command[0]).name))


def container(image: str, *command: str, **options: Any) -> Recipe:
    """Return an implementation that runs an image as a container, with Docker or Podman.

    Parameters:
        image: as the engine knows it, such as `busybox:1.36`.
        command: instead of the image's own; empty: the image's own.
        options: further options of the docker executor, such as `ports=[80], network="none"`.

    Raises:
        SpecError: if the image has no name.
    """
    if not image:
        raise SpecError("container() needs an image, such as container('busybox', 'echo', 'hello')")
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return Recipe(
        Implementation("docker", args=command, options={"image": image, **options}), _as_name(name)
    )


def wasm(module: Content, *args: str | float, function: str = "", **options: Any) -> Recipe:
    """Return an implementation that runs a WASM module.

    Parameters:
        module: bytes or path; text format (`.wat`) is compiled here if wasmtime is installed.
        args: arguments of the command module, or the numbers for `function`.
        function: the exported function to call; empty: run the module's WASI command.
        options: further options of the wasm executor, such as `abi="bytes", input=b"..."`.

    Raises:
        BlobError: if the file cannot be read.
        SpecError: if the text cannot be compiled, or wasmtime is missing for it.
    """
    stem = "" if isinstance(module, bytes) else Path(module).stem
    source = BlobSource.of(compile_wat(module))
    if function:
        options["function"] = function
    implementation = Implementation("wasm", source.id, args, options)
    return Recipe(implementation, _as_name(function or stem or "wasm"), (source,))


def compile_wat(module: Content) -> Content:
    """Return `module`, compiled if it is in text format.

    Raises:
        BlobError, SpecError: as `wasm`.
    """
    if isinstance(module, bytes):
        if module.startswith(WASM_MAGIC):
            return module
        text, where = module, "module"
    elif Path(module).suffix == ".wat":
        try:
            text, where = Path(module).read_bytes(), str(module)
        except OSError as error:
            raise SpecError(f"{module} cannot be read: {error.strerror}") from error
    else:
        return module
    try:
        wasmtime = importlib.import_module("wasmtime")
    except ImportError:
        raise SpecError(
            f"{where} is WASM text and must be compiled first: pip install wasmtime, "
            f"or pass the compiled .wasm"
        ) from None
    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise SpecError(f"{where} is neither a WASM module nor WASM text: {error}") from error


def task(*implementations: Recipe | Implementation, **options: Unpack[TaskOptions]) -> Draft:
    """Return a task made of implementations, the preferred one first. See `TaskOptions`.

    Raises:
        SpecError, ResourceError: naming what is wrong.
        BlobError: if a file of `files` cannot be read.
    """
    if not implementations:
        raise SpecError("task() needs an implementation, such as process('echo', 'hello')")
    # A policy that is given under a wrong name would not hold, and nobody would know.
    for unknown in sorted(options.keys() - TaskOptions.__annotations__.keys()):
        raise SpecError(f"task() has no option {unknown}; known: {', '.join(TaskOptions.__annotations__)}")
    recipes = [i if isinstance(i, Recipe) else Recipe(i, i.executor) for i in implementations]
    files = {path: BlobSource.of(content) for path, content in options.get("files", {}).items()}
    restart = options.get("restart", RestartPolicy())
    spec = TaskSpec(
        name=options.get("name") or recipes[0].name,
        implementations=tuple(recipe.implementation for recipe in recipes),
        resources=_resources(options),
        env=dict(options.get("env", {})),
        constraints=tuple(_constraint(c) for c in options.get("constraints", ())),
        preferences=tuple(_preference(p) for p in options.get("preferences", ())),
        files=tuple(File(path, source.id) for path, source in files.items()),
        volumes=tuple(options.get("volumes", ())),
        restart=restart if isinstance(restart, RestartPolicy) else RestartPolicy(on=restart),
        reschedule=options.get("reschedule", ReschedulePolicy()),
        disconnect=options.get("disconnect", DisconnectPolicy()),
        time_limit_s=options.get("time_limit_s"),
        kill_grace_s=options.get("kill_grace_s", 5.0),
        instances=options.get("instances", 1),
    )
    check_spec(spec)
    blobs = [blob for recipe in recipes for blob in recipe.blobs]
    return Draft(spec, (*blobs, *files.values()))


def as_draft(what: Submittable, **options: Unpack[TaskOptions]) -> Draft:
    """Return whatever `submit` takes as a draft.

    Raises:
        SpecError: also if `options` are given for what is a whole task already.
    """
    match what:
        case Draft() | TaskSpec():
            if options:
                raise SpecError(f"{', '.join(options)}: give these to task(), or to the TaskSpec itself")
            if isinstance(what, Draft):
                return what
            check_spec(what)
            return Draft(what)
        case Recipe() | Implementation():
            return task(what, **options)
        case _:
            return task(*what, **options)


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:MAX_NAME_CHARS] or "task"


def _resources(options: TaskOptions) -> ResourceRequest:
    devices = (d if isinstance(d, DeviceRequest) else DeviceRequest(d) for d in options.get("devices", ()))
    amounts: dict[str, object] = {}
    if "cpus" in options:
        amounts["cpus"] = options["cpus"]
    if "mem" in options:
        amounts["mem"] = options["mem"]
    if "disk" in options:
        amounts["disk"] = options["disk"]
    other = ResourceRequest.parse(options.get("resources", ""), devices)
    named = ResourceRequest.parse(amounts)
    if twice := named.quantities.keys() & other.quantities.keys():
        raise SpecError(f"{', '.join(sorted(twice))}: given by name and in resources")
    return ResourceRequest(
        {**named.quantities, **other.quantities}, other.ranges, other.sets, other.devices
    )


def _constraint(constraint: str | Constraint) -> Constraint:
    return parse_constraint(constraint) if isinstance(constraint, str) else constraint


def _preference(preference: str | Preference | tuple[str, float]) -> Preference:
    match preference:
        case Preference():
            return preference
        case str():
            return Preference(parse_constraint(preference))
        case (text, weight):
            return Preference(parse_constraint(text), weight)
