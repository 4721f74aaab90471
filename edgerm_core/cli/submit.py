"""`edgerm submit`: the tasks of a TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgerm_core.cli.output import Column, show_json, show_table
from edgerm_core.cli.settings import Settings
from edgerm_core.ids import format_task_id

if TYPE_CHECKING:
    from edgerm_core.client.specs import Draft
    from edgerm_core.client.tasks import Task

COLUMNS: Final = (
    Column("ID", lambda row: str(row["id"])),
    Column("NAME", lambda row: str(row["name"])),
    Column("STATE", lambda row: str(row["state"])),
    Column("REASON", lambda row: str(row["reason"])),
)


@click.command(short_help="submit the tasks of a TOML file")
@click.argument("specfile", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--framework", default="submit", metavar="NAME", help="Name of the framework they belong to.")
@click.option(
    "--weight", type=click.FloatRange(0.001), default=1.0, help="The framework's weight in sharing."
)
@click.option("--wait", is_flag=True, help="Return when all have ended; exit code as for 'edgerm run'.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def submit(
    settings: Settings, specfile: Path, framework: str, weight: float, wait: bool, as_json: bool
) -> int:
    """Submit the tasks of SPECFILE, and print their ids. All or none of them are taken.

    \b
        [[task]]
        name = "hello"
        resources = { cpus = 0.5, mem = "64MiB" }
        constraints = ["os==linux"]
        [[task.implementation]]
        executor = "process"
        args = ["echo", "hello"]

    Modules and files that it names are uploaded; paths are relative to it. With --wait, Ctrl-C ends
    the tasks.
    """
    import anyio

    from edgerm_core.specfile import load_specfile

    drafts = load_specfile(specfile)
    return anyio.run(_submit, settings, drafts, framework, weight, wait, as_json)


async def _submit(
    settings: Settings, drafts: Sequence[Draft], name: str, weight: float, wait: bool, as_json: bool
) -> int:
    from edgerm_core.cli.run import connected_framework
    from edgerm_core.cli.watching import Watch

    async with connected_framework(settings, name, weight) as framework:
        tasks = await framework.submit_many(drafts)
        code = await Watch(settings, framework, tasks, output=False).run() if wait else 0
    rows = [task_row(task) for task in tasks]
    if as_json:
        show_json(rows)
    else:
        show_table(COLUMNS, rows, "no tasks")
    return code


def task_row(task: Task) -> dict[str, Any]:
    """Return where the task stands, as plain values."""
    update = task.update
    return {
        "id": format_task_id(task.id),
        "number": int(task.id),
        "name": task.name,
        "state": update.state.name,
        "reason": update.reason,
        "message": update.message,
        "agent_id": update.agent_id,
        "attempt": update.attempt,
        "exit_code": update.exit_code,
        "signal": update.signal,
        "result": update.result,
    }
