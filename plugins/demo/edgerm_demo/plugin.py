"""What this plugin adds to edgerm."""

from __future__ import annotations

from collections.abc import Iterable

import click

from edgerm_core.hookspecs import hookimpl


@click.command(short_help="run a whole cluster on this machine")
@click.option("--keep", is_flag=True, help="Leave the cluster running at the end; Ctrl-C ends it.")
@click.option("--plain", is_flag=True, help="Print lines only, as for a log file, also on a terminal.")
def demo(keep: bool, plain: bool) -> None:
    """Start a master and three agents on loopback, let two frameworks compete for them on real
    weather data, kill an agent half-way, and check the result. Takes less than two minutes."""
    import anyio

    from edgerm_demo.show import run_demo

    anyio.run(run_demo, keep, plain)


@hookimpl
def commands() -> Iterable[click.Command]:
    """Add `edgerm demo`."""
    return [demo]
