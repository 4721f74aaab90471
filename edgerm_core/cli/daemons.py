"""`edgerm master` and `edgerm agent`: the two daemons, in the foreground, logging to stderr.

SIGTERM and SIGINT end a daemon cleanly with exit code 0; a second one ends it at once. Flags win over
the config file.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
import msgspec

from edgerm_core import __version__
from edgerm_core.cli.settings import Settings

if TYPE_CHECKING:
    from edgerm_core.attributes import AttributeValue
    from edgerm_core.config import Config
    from edgerm_core.plugins import Plugins

log = logging.getLogger("edgerm")

MASTER_SECTIONS: Final = ("transport", "store", "scheduler")
AGENT_SECTIONS: Final = ("transport", "executor")
"""Of these kinds nobody else says that a section has the name of nothing that is there."""

LEVELS: Final = (logging.INFO, logging.DEBUG)
"""Log level by how often `-v` was given."""


@click.command(short_help="run the master")
@click.option("--listen", metavar="URL", multiple=True, help="Listen here; may be given several times.")
@click.option("--data-dir", metavar="DIR", help="Where the master's records and blobs live.")
@click.option("--scheduler", metavar="NAME", help="Scheduler plugin [default: drf, else first-fit].")
@click.option(
    "--insecure", is_flag=True, help="Allow listening off loopback although peers are not authenticated."
)
@click.pass_obj
def master(
    settings: Settings, listen: tuple[str, ...], data_dir: str | None, scheduler: str | None, insecure: bool
) -> None:
    """Run the master, which owns agents, frameworks and tasks, until SIGTERM or Ctrl-C."""
    start_logging(settings.verbosity)
    section = override(settings.config.master, listen=listen, data_dir=data_dir, scheduler=scheduler)
    if insecure or settings.insecure:
        section = msgspec.structs.replace(section, insecure=True)
    config = msgspec.structs.replace(settings.config, master=section)
    plugins = _plugins(settings, config, section.listen, MASTER_SECTIONS)

    from edgerm_core.master.runner import run_master

    def ready(urls: list[str]) -> None:
        log.info("master %s listens on %s", __version__, " ".join(urls))

    async def daemon() -> None:
        await run_master(config, plugins, on_ready=ready)

    anyio.run(
        until_signal,
        daemon,
        plugins,
        backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None},
    )


@click.command(short_help="run the agent of this machine")
@click.option(
    "--master",
    "masters",
    metavar="URL",
    multiple=True,
    help="Join this master; may be given several times, they are tried in turn.",
)
@click.option("--name", metavar="NAME", help="Name for people [default: the host name].")
@click.option("--data-dir", metavar="DIR", help="Where sandboxes, cached blobs and records live.")
@click.option(
    "--resources", metavar="TEXT", help="What to offer, such as 'cpus:2;mem:512MiB' [default: all]."
)
@click.option(
    "--attribute", "attributes", metavar="NAME=VALUE", multiple=True, help="A fact for constraints."
)
@click.option("--executor", "executors", metavar="NAME", multiple=True, help="Offer only these executors.")
@click.option(
    "--gateway",
    "gateway",
    metavar="URL",
    multiple=True,
    help="Accept constrained devices here and stand in for them; may be given several times.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow masters and devices off loopback although nobody is authenticated.",
)
@click.pass_obj
def agent(
    settings: Settings,
    masters: tuple[str, ...],
    name: str | None,
    data_dir: str | None,
    resources: str | None,
    attributes: tuple[str, ...],
    executors: tuple[str, ...],
    gateway: tuple[str, ...],
    insecure: bool,
) -> None:
    """Run the agent of this machine until SIGTERM or Ctrl-C; tasks that can outlive it go on."""
    start_logging(settings.verbosity)
    if not masters and settings.chosen_master_url:
        masters = (settings.chosen_master_url,)
    if resources:
        from edgerm_core.resources import Resources

        Resources.parse(resources)
    section = override(
        settings.config.agent,
        masters=masters,
        name=name,
        data_dir=data_dir,
        resources=resources,
        executors=executors,
    )
    facts = dict(section.attributes)
    facts.update(parse_attribute(text) for text in attributes)
    section = msgspec.structs.replace(
        section, attributes=facts, insecure=insecure or settings.insecure or section.insecure
    )
    devices = override(settings.config.gateway, listen=gateway)
    if insecure or settings.insecure:
        devices = msgspec.structs.replace(devices, insecure=True)
    config = msgspec.structs.replace(settings.config, agent=section, gateway=devices)
    plugins = _plugins(settings, config, (*section.masters, *devices.listen), AGENT_SECTIONS)
    for executor in section.executors or ():
        plugins.provider("executor", executor)

    from edgerm_core.agent.runner import run_agent

    async def daemon() -> None:
        await run_agent(config, plugins)

    anyio.run(until_signal, daemon, plugins)


def _plugins(settings: Settings, config: Config, urls: Sequence[str], kinds: Sequence[str]) -> Plugins:
    """Return the plugins, all transports that the URLs need among them.

    Parameters:
        kinds: what this daemon uses: sections of theirs that nothing reads are named in the log.

    Raises:
        PluginError: if a transport is missing, with what to install.
    """
    settings.config = config
    plugins = settings.plugins
    for url in urls:
        plugins.transport_for(url)
    for sentence in plugins.unused_sections(kinds):
        log.warning("%s", sentence)
    return plugins


def override(section: Any, **flags: object) -> Any:
    """Return the section with each flag that was given; an empty one was not."""
    given = {name: value for name, value in flags.items() if value}
    return msgspec.structs.replace(section, **given)


def parse_attribute(text: str) -> tuple[str, AttributeValue]:
    """Read `floor=3` as a number, `indoor=true` as a boolean, anything else as text.

    Raises:
        click.BadParameter: if there is no '=' or no name before it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--attribute")
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return name, value
    return name, number if math.isfinite(number) else value


async def until_signal(daemon: Callable[[], Awaitable[None]], plugins: Plugins) -> None:
    """Run `daemon` until it ends or the process is told to; a second signal ends the process at once.

    Parameters:
        plugins: to name the one that keeps the event loop from turning.
    """
    from edgerm_core.watchdog import watch_loop

    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for number in signals:
                    if group.cancel_scope.cancel_called:
                        os._exit(128 + number)
                    log.info("stopping on %s", signal.Signals(number).name)
                    group.cancel_scope.cancel()

        async def shielded_watch() -> None:
            with watching:
                await watch()

        watching = anyio.CancelScope(shield=True)
        group.start_soon(shielded_watch)
        group.start_soon(watch_loop, plugins.plugin_of)
        try:
            await daemon()
        finally:
            watching.cancel()
            group.cancel_scope.cancel()


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO    edgerm: message`, and errors as one line unless asked for more."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of the record in UTC, to the millisecond."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03d}Z"


def start_logging(verbosity: int) -> None:
    """Log to stderr, one line a record; `verbosity` 1 and above: also what only a developer reads."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=LEVELS[min(verbosity, len(LEVELS) - 1)], handlers=[handler], force=True)
    if verbosity < 2:
        # Libraries speak of every frame at these levels.
        for library in ("websockets", "asyncio"):
            logging.getLogger(library).setLevel(logging.WARNING)
