"""`edgerm logs`: what a task printed, as far as its agent still keeps it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgerm_core.cli.asking import with_operator
from edgerm_core.cli.output import note
from edgerm_core.cli.settings import Settings
from edgerm_core.cli.tasks import find_task

if TYPE_CHECKING:
    from edgerm_core.client.operator import Operator


@click.command(short_help="show what a task printed")
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on as it prints, until it ends.")
@click.option("--stderr", is_flag=True, help="Its error output instead of its output.")
@click.option(
    "--tail", "tail_bytes", type=click.IntRange(0), metavar="BYTES", help="Only the last so many bytes."
)
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt [default: the latest].")
@click.pass_obj
def logs(
    settings: Settings, task: str, follow: bool, stderr: bool, tail_bytes: int | None, attempt: int | None
) -> None:
    """Show what TASK (t17, 17 or its unique name) printed, byte for byte.

    An agent keeps the last part of each output, and that of ended tasks for about an hour.
    """

    async def work(operator: Operator) -> None:
        task_id = await find_task(operator, task)
        async for piece in operator.logs(
            task_id,
            "stderr" if stderr else "stdout",
            follow=follow,
            tail_bytes=tail_bytes,
            attempt=attempt or 0,
        ):
            if piece.missed_bytes:
                note(f"({piece.missed_bytes} bytes are no longer kept)")
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()

    with_operator(settings, work)
