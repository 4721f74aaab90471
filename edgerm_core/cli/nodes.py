"""`edgerm drain` and `edgerm forget`: what an operator does about an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from edgerm_core.cli.asking import with_operator
from edgerm_core.cli.output import note
from edgerm_core.cli.settings import Settings
from edgerm_core.errors import RequestFailed
from edgerm_core.limits import QUERY_MAX_ROWS

if TYPE_CHECKING:
    from edgerm_core.client.operator import Operator

POLL_S: Final = 0.5
"""How often `drain --wait` looks whether tasks are left."""


async def find_agent(operator: Operator, text: str) -> dict[str, Any]:
    """Return the row of the agent whose id, or unique name, is `text`.

    Raises:
        RequestFailed: if there is none, or several.
    """
    rows = (await operator.query("agents", limit=QUERY_MAX_ROWS)).rows
    found = [row for row in rows if row["id"] == text] or [row for row in rows if row["name"] == text]
    if len(found) > 1:
        ids = ", ".join(str(row["id"]) for row in found[:10])
        raise RequestFailed("not-found", f"{len(found)} agents are named {text!r}: use an id ({ids})")
    if not found:
        raise RequestFailed("not-found", f"there is no agent {text!r}: edgerm agents lists them")
    return found[0]


@click.command(short_help="move an agent's tasks away and give it no new ones")
@click.argument("agent")
@click.option("--undo", is_flag=True, help="Let it work again.")
@click.option("--wait", is_flag=True, help="Return when no task is left on it.")
@click.pass_obj
def drain(settings: Settings, agent: str, undo: bool, wait: bool) -> None:
    """Give AGENT (id or unique name) no new tasks and move its tasks away, such as before an update."""
    if undo and wait:
        raise click.UsageError("--undo and --wait exclude each other")

    async def work(operator: Operator) -> None:
        import anyio

        row = await find_agent(operator, agent)
        await operator.drain(row["id"], undo=undo)
        left = -1
        while wait:
            row = await find_agent(operator, row["id"])
            if row["tasks"] == 0:
                break
            if row["tasks"] != left:
                left = row["tasks"]
                note(f"{left} tasks left on {row['name']}")
            await anyio.sleep(POLL_S)

    with_operator(settings, work)
    note(f"{agent} works again" if undo else f"{agent} {'is drained' if wait else 'drains'}")


@click.command(short_help="declare an agent gone for good")
@click.argument("agent")
@click.pass_obj
def forget(settings: Settings, agent: str) -> None:
    """Declare AGENT (id or unique name) gone for good: its tasks are lost now, whatever their policy."""

    async def work(operator: Operator) -> None:
        await operator.forget((await find_agent(operator, agent))["id"])

    with_operator(settings, work)
    note(f"{agent} is forgotten")
