"""`edgerm run`: one command or module as a task, its output here, its exit code ours."""

from __future__ import annotations

import os
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec

from edgerm_core.cli.output import note
from edgerm_core.cli.settings import Settings
from edgerm_core.ids import format_task_id

if TYPE_CHECKING:
    from edgerm_core.client.framework import Framework
    from edgerm_core.client.specs import Draft, Recipe
    from edgerm_core.resources import DeviceRequest

DEFAULT_RESOURCES: Final = {"cpus": "1", "mem": "128MiB"}
"""What a task asks for where neither an option nor `--resources` names it, as Mesos does."""

Restart = Literal["never", "failure", "always"]


class RunOptions(msgspec.Struct, frozen=True):
    """The options of `edgerm run` that describe the task. Meaning: see `edgerm run --help`."""

    command: tuple[str, ...] = ()
    wasm: Path | None = None
    process: bool = False
    image: str = ""
    executor: str = ""
    options: tuple[str, ...] = ()
    name: str | None = None
    cpus: str | None = None
    mem: str | None = None
    resources: str = ""
    env: tuple[str, ...] = ()
    count: int = 1
    constraints: tuple[str, ...] = ()
    function: str = ""
    args: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    time_limit_s: float | None = None
    restart: Restart = "never"


def build_draft(options: RunOptions) -> Draft:
    """Return the task that the options describe, and the files to upload for it.

    Raises:
        click.UsageError: if options contradict each other.
        SpecError, ResourceError, BlobError: if one of them makes no sense.
    """
    from edgerm_core.client.specs import Draft, TaskOptions, task
    from edgerm_core.tasks import File, Volume

    locals_of = dict(parse_file(text) for text in options.files)
    about: TaskOptions = {
        "resources": merge_resources(options),
        "env": dict(parse_pair(text, "--env") for text in options.env),
        "constraints": options.constraints,
        "files": dict(locals_of),
        "volumes": [Volume(path, name) for name, path in map(parse_volume, options.volumes)],
        "restart": options.restart,
        "time_limit_s": options.time_limit_s,
        "instances": options.count,
    }
    if options.name:
        about["name"] = options.name
    if options.devices:
        about["devices"] = [parse_device(text) for text in options.devices]
    draft = task(build_recipe(options), **about)
    # A script that can be run here can be run there.
    files = tuple(File(f.path, f.blob, os.access(locals_of[f.path], os.X_OK)) for f in draft.spec.files)
    return Draft(msgspec.structs.replace(draft.spec, files=files), draft.blobs)


def build_recipe(options: RunOptions) -> Recipe:
    """Return what the task runs.

    Raises:
        click.UsageError: if options contradict each other.
        SpecError, BlobError: if one of them makes no sense.
    """
    from edgerm_core.client.specs import Recipe, container, process, wasm
    from edgerm_core.tasks import Implementation

    given = [options.wasm is not None, options.process, bool(options.image), bool(options.executor)]
    if sum(given) != 1:
        raise click.UsageError(
            "give one of --wasm FILE, --image NAME, --process and the command after --, or --executor NAME"
        )
    if options.wasm is None and (options.function or options.args):
        raise click.UsageError("--function and --arg are for --wasm; a command's arguments go after --")
    if options.ports and not options.image:
        raise click.UsageError("--port is for --image; others get ports with --resources 'ports:1'")
    extra = dict(parse_option(text) for text in options.options)
    if options.image:
        if options.ports:
            extra["ports"] = [parse_port(text) for text in options.ports]
        return container(options.image, *options.command, **extra)
    if options.executor:
        return Recipe(Implementation(options.executor, None, options.command, extra), options.executor)
    if options.wasm is None:
        if not options.command:
            raise click.UsageError("--process needs the command after --, such as: --process -- echo hello")
        recipe = process(*options.command)
        implementation = msgspec.structs.replace(recipe.implementation, options=extra)
        return Recipe(implementation, recipe.name)
    if options.args and not options.function:
        raise click.UsageError("--arg is for --function; a module's arguments go after --")
    values = [*map(parse_value, options.args), *options.command] if options.function else options.command
    return wasm(options.wasm, *values, function=options.function, **extra)


def merge_resources(options: RunOptions) -> str:
    """Return `--resources` with `--cpus`, `--mem`, their defaults and a port for each `--port` put in.

    Raises:
        click.UsageError: if an amount is given twice.
    """
    text = options.resources.strip().strip(";")
    named = {part.partition(":")[0].strip() for part in text.split(";") if part.strip()}
    parts = [text] if text else []
    for name, given in (("cpus", options.cpus), ("mem", options.mem)):
        if given is not None and name in named:
            raise click.UsageError(f"{name} is given both by --{name} and in --resources")
        if name not in named:
            parts.append(f"{name}:{DEFAULT_RESOURCES[name] if given is None else given}")
    if options.ports:
        if "ports" in named:
            raise click.UsageError("ports are given both by --port and in --resources")
        parts.append(f"ports:{len(options.ports)}")
    return ";".join(parts)


def parse_value(text: str) -> str | int | float:
    """Return the number that `text` spells, else `text`."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def parse_option(text: str) -> tuple[str, Any]:
    """Read `KEY=VALUE`, the value as TOML has it; what is not TOML is text.

    Raises:
        click.BadParameter: if there is no key or no value.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--option")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def parse_port(text: str) -> int | str:
    """Read `PORT` or `PORT/PROTOCOL`.

    Raises:
        click.BadParameter: if the port is none.
    """
    port, slash, _ = text.partition("/")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise click.BadParameter(f"{text!r} is not a port from 1 to 65535", param_hint="--port")
    return text if slash else int(port)


def parse_device(text: str) -> DeviceRequest:
    """Read `TYPE` or `TYPE:COUNT`.

    Raises:
        click.BadParameter: if the count is no number.
        ResourceError: if the request makes no sense.
    """
    from edgerm_core.resources import DeviceRequest

    kind, colon, count = text.partition(":")
    if colon and not count.isdecimal():
        raise click.BadParameter(f"{text!r} is not TYPE or TYPE:COUNT", param_hint="--device")
    return DeviceRequest(kind, int(count) if colon else 1)


def parse_pair(text: str, option: str) -> tuple[str, str]:
    """Read `NAME=VALUE`; `NAME` alone takes the value from this environment.

    Raises:
        click.BadParameter: if there is no name, or no such variable here.
    """
    name, equals, value = text.partition("=")
    if not name or not (equals or name in os.environ):
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value if equals else os.environ[name]


def parse_file(text: str) -> tuple[str, str]:
    """Read `LOCAL` or `LOCAL:PATH`; return the path in the task's working directory and the local one."""
    local, colon, path = text.partition(":")
    return (path if colon else Path(local).name), local


def parse_volume(text: str) -> tuple[str, str]:
    """Read `PATH` (temporary) or `NAME:PATH` (kept on the agent); return name and path."""
    name, colon, path = text.partition(":")
    return (name, path) if colon else ("", text)


@click.command(short_help="run a task, show its output, exit as it does")
@click.option(
    "--wasm", type=click.Path(path_type=Path), metavar="FILE", help="Run this module; .wat is compiled."
)
@click.option("--process", is_flag=True, help="Run the command after --, without a shell.")
@click.option("--image", default="", metavar="NAME", help="Run this image as a container (Docker, Podman).")
@click.option("--executor", default="", metavar="NAME", help="Run it with any other executor.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="For the executor, such as network=none.",
)
@click.option("--function", default="", metavar="NAME", help="Call this exported function of the module.")
@click.option("--arg", "args", multiple=True, metavar="VALUE", help="Value for the function.")
@click.option("--name", metavar="NAME", help="The task's name [default: made from what it runs].")
@click.option("--cpus", metavar="N", help=f"CPUs it gets [default: {DEFAULT_RESOURCES['cpus']}].")
@click.option(
    "--mem", metavar="N", help=f"Memory it gets, in MiB or as 1GiB [default: {DEFAULT_RESOURCES['mem']}]."
)
@click.option(
    "--resources", default="", metavar="TEXT", help="What else it gets, such as 'disk:100;ports:1'."
)
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Environment variable.")
@click.option("--constraint", "constraints", multiple=True, metavar="TEXT", help="Such as 'zone in a,b'.")
@click.option(
    "--file", "files", multiple=True, metavar="LOCAL[:PATH]", help="Put this file into its directory."
)
@click.option("--volume", "volumes", multiple=True, metavar="[NAME:]PATH", help="A directory; named: kept.")
@click.option(
    "--port", "ports", multiple=True, metavar="PORT[/udp]", help="Publish this port of the container."
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="TYPE[:COUNT]",
    help="A device of this type, such as camera.",
)
@click.option(
    "--time-limit", "time_limit_s", type=click.FloatRange(0), metavar="SECONDS", help="End it after this."
)
@click.option(
    "--restart",
    type=click.Choice(["never", "failure", "always"]),
    default="never",
    help="When its agent starts it again [default: never].",
)
@click.option("--count", type=click.IntRange(1), default=1, help="Run it so many times at once.")
@click.option("--framework", default="run", metavar="NAME", help="Name of the framework it belongs to.")
@click.option(
    "--weight", type=click.FloatRange(0.001), default=1.0, help="The framework's weight in sharing."
)
@click.option(
    "--wait/--detach", default=True, help="Stay until it ends [default], or print its id and leave."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS...]")
@click.pass_obj
def run(
    settings: Settings,
    wasm: Path | None,
    process: bool,
    image: str,
    executor: str,
    options: tuple[str, ...],
    function: str,
    args: tuple[str, ...],
    name: str | None,
    cpus: str | None,
    mem: str | None,
    resources: str,
    env: tuple[str, ...],
    constraints: tuple[str, ...],
    files: tuple[str, ...],
    volumes: tuple[str, ...],
    ports: tuple[str, ...],
    devices: tuple[str, ...],
    time_limit_s: float | None,
    restart: Restart,
    count: int,
    framework: str,
    weight: float,
    wait: bool,
    command: tuple[str, ...],
) -> int:
    """Run a task, show its output, and exit as it does.

    \b
        edgerm run --process -- sh -c 'echo hello from $(hostname)'
        edgerm run --wasm add.wat --function add --arg 2 --arg 3
        edgerm run --wasm tool.wasm --count 4 -- --verbose
        edgerm run --image busybox --port 80 --volume site:/www -- httpd -f -h /www

    What the task prints goes to stdout and stderr, a function's result to stdout, notes on where it
    is placed or why it waits to stderr. Exit code: the task's; 128 + n if signal n ended it; 1 if it
    failed otherwise; with --count the first that is not 0. Ctrl-C ends the tasks, a second one
    leaves at once. With --count output is shown in whole lines behind the task's name and index.
    """
    draft = build_draft(
        RunOptions(
            command, wasm, process, image, executor, options, name, cpus, mem, resources, env, count,
            constraints, function, args, files, volumes, ports, devices, time_limit_s, restart,
        )
    )  # fmt: skip
    import anyio

    return anyio.run(submit_and_watch, settings, [draft], framework, weight, wait)


async def submit_and_watch(
    settings: Settings, drafts: Sequence[Draft], name: str, weight: float, wait: bool
) -> int:
    """Submit; watch, or print the ids. Return the exit code. No task outlives an error of a watcher."""
    from edgerm_core.cli.watching import Watch

    async with connected_framework(settings, name, weight) as framework:
        tasks = await framework.submit_many(drafts)
        if wait:
            return await Watch(settings, framework, tasks, output=True).run()
        for task in tasks:
            click.echo(format_task_id(task.id))
        return 0


@asynccontextmanager
async def connected_framework(settings: Settings, name: str, weight: float) -> AsyncIterator[Framework]:
    """Connect as the framework that commands under this name are; a lost connection is noted."""
    from edgerm_core.cli.identity import held_framework_id
    from edgerm_core.client.framework import connect_framework

    was_connected = False

    def tell(connected: bool, sentence: str) -> None:
        nonlocal was_connected
        if was_connected:
            note(sentence)
        was_connected = was_connected or connected

    with held_framework_id(name) as framework_id:
        async with connect_framework(
            settings.master_url,
            id=framework_id,
            name=name,
            weight=weight,
            insecure=settings.insecure,
            on_connection=tell,
            plugins=settings.transports,
        ) as framework:
            yield framework
