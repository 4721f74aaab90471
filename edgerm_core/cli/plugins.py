"""`edgerm plugins`: what is installed, what it provides, and what is wrong with it."""

from __future__ import annotations

from typing import Final

import click
import msgspec

from edgerm_core.cli.output import Column, show_json, show_table
from edgerm_core.cli.settings import Settings

COLUMNS: Final = (
    Column("NAME", lambda row: str(row["name"])),
    Column("DISTRIBUTION", lambda row: str(row["distribution"])),
    Column("VERSION", lambda row: str(row["version"])),
    Column("STATUS", lambda row: str(row["status"])),
    Column("PROVIDES", lambda row: ", ".join(row["provides"])),
    Column("PROBLEM", lambda row: str(row["problem"])),
)


@click.command(short_help="list plugins")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def plugins(settings: Settings, as_json: bool) -> None:
    """List plugins: where they come from, what they provide, and what is wrong with them.

    Status: loaded; disabled by the config's [plugins] section; broken, with the problem.
    """
    loaded = settings.plugins
    list(loaded.commands())  # One that fails here is broken too.
    rows = [msgspec.to_builtins(info) for info in loaded.infos]
    if as_json:
        show_json(rows)
    else:
        show_table(COLUMNS, rows, "no plugins")
