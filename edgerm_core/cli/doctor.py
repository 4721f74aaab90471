"""`edgerm doctor`: what this machine can do, and how to get what is missing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click
import msgspec

from edgerm_core.cli import checks
from edgerm_core.cli.checks import Check
from edgerm_core.cli.output import COLOURS, fancy, one_line, show_json
from edgerm_core.cli.settings import Settings
from edgerm_core.config import default_data_dir
from edgerm_core.errors import EdgermError

MASTER_TIMEOUT_S: Final = 2.0


@click.command(short_help="say what this machine can do and how to get what is missing")
@click.option(
    "--require",
    metavar="NAME",
    multiple=True,
    help="Exit with 1 unless this check is ok; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def doctor(settings: Settings, require: tuple[str, ...], as_json: bool) -> int:
    """Say what this machine can do and how to get what is missing.

    Status: ok; warn (works, with a drawback); missing. Nobody needs everything: exit code 0 unless
    a check named by --require is not ok.
    """
    import anyio

    found = anyio.run(look, settings)
    if as_json:
        show_json([msgspec.to_builtins(check) for check in found])
    else:
        for check in found:
            click.echo(format_check(check), color=fancy())
    broken = failed_requirements(found, require)
    for sentence in broken:
        click.echo(f"edgerm: {sentence}", err=True)
    return 1 if broken else 0


def format_check(check: Check) -> str:
    """Return one check as a line, and what to do about it as a second one."""
    status = click.style(f"{check.status:8}", fg=COLOURS[check.status])
    line = f"{status}{check.name:18} {one_line(check.detail)}"
    return line + (f"\n{'':8}{'':18} -> {one_line(check.fix)}" if check.fix else "")


async def look(settings: Settings) -> list[Check]:
    """Run every check."""
    config, plugins = settings.config, settings.plugins
    return [
        checks.check_python(),
        *checks.check_cgroups(),
        *await checks.check_executors(plugins),
        *checks.check_transports(plugins),
        checks.check_clock(time.time(), checks.read_sync_state()),
        checks.check_disk("disk-master", Path(config.master.data_dir or default_data_dir("master"))),
        checks.check_disk("disk-agent", Path(config.agent.data_dir or default_data_dir("agent"))),
        await check_master(settings),
    ]


async def check_master(settings: Settings) -> Check:
    """Ask the master how it is."""
    from edgerm_core.client.operator import connect_operator

    url = settings.master_url
    try:
        async with connect_operator(
            url, insecure=settings.insecure, connect_timeout_s=MASTER_TIMEOUT_S, plugins=settings.plugins
        ) as operator:
            row = (await operator.query("cluster")).rows[0]
    except EdgermError as error:
        return Check("master", "missing", f"no answer from {url}", str(error))
    detail = f"{url}, version {row['version']}, {row['agents_ready']} of {row['agents']} agents ready"
    return Check("master", "ok", detail)


def failed_requirements(found: list[Check], require: tuple[str, ...]) -> list[str]:
    """Return a sentence for each required check that is not ok.

    Raises:
        click.UsageError: if there is no check of that name.
    """
    by_name = {check.name: check for check in found}
    unknown = [name for name in require if name not in by_name]
    if unknown:
        raise click.UsageError(f"no check {', '.join(unknown)}: expected some of {', '.join(by_name)}")
    return [
        f"{name} is required: {by_name[name].detail}; {by_name[name].fix}"
        for name in require
        if by_name[name].status != "ok"
    ]
