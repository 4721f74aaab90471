"""`edgerm story`, `explain` and `kill`: about one task, named by its id or its unique name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from edgerm_core.cli.asking import query, with_operator
from edgerm_core.cli.output import Column, Row, format_age, note, one_line, show_json, show_table
from edgerm_core.cli.settings import Settings
from edgerm_core.errors import RequestFailed, SpecError
from edgerm_core.ids import TaskId, parse_task_id

if TYPE_CHECKING:
    from edgerm_core.client.operator import Operator

NAMED_TASKS: Final = 10
"""So many tasks of one name are listed when a name is not unique."""


async def find_task(operator: Operator, text: str) -> TaskId:
    """Return the id that `text` spells, or that of the one task of that name; live ones come first.

    Raises:
        RequestFailed: if there is none, or several.
    """
    try:
        return parse_task_id(text)
    except SpecError:
        pass
    for ended in (False, True):
        answer = await operator.query("tasks", name=text, ended=ended, limit=NAMED_TASKS)
        if answer.total > 1:
            ids = ", ".join(str(row["id"]) for row in answer.rows)
            more = "" if answer.total <= len(answer.rows) else ", …"
            raise RequestFailed(
                "not-found", f"{answer.total} tasks are named {text!r}: use an id ({ids}{more})"
            )
        if answer.rows:
            return TaskId(answer.rows[0]["number"])
    raise RequestFailed(
        "not-found", f"there is no task {text!r}: expected an id, such as t17, or a task's name"
    )


def local_time(at: float) -> str:
    """Return a time of day with its date, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"


STORY_COLUMNS: Final = (
    Column("TIME", lambda row: local_time(float(row["at"]))),
    Column("AFTER", lambda row: str(row["after"]), right=True),
    Column("STATE", lambda row: str(row["state"])),
    Column("REASON", lambda row: str(row["reason"])),
    Column("ATTEMPT", lambda row: str(row["attempt"] or ""), right=True),
    Column("AGENT", lambda row: str(row["agent"])),
    Column("SOURCE", lambda row: str(row["source"])),
    Column("MESSAGE", lambda row: str(row["message"])),
)


def with_intervals(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the story's rows, each with the time since the one before."""
    out: list[Row] = []
    for index, row in enumerate(rows):
        since = float(row["at"]) - float(rows[index - 1]["at"]) if index else 0.0
        out.append({**row, "after": f"+{since:.3f}s" if since < 10 else f"+{format_age(since)}"})
    return out


@click.command(short_help="tell what happened to a task")
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def story(settings: Settings, task: str, as_json: bool) -> None:
    """Tell what happened to TASK (t17, 17 or its unique name), oldest first."""
    rows, _ = query(settings, "story", {"task": task})
    if as_json:
        show_json(rows)
    else:
        show_table(STORY_COLUMNS, with_intervals(rows), f"nothing is known about {task}")


AGENT_COLUMNS: Final = (
    Column("AGENT", lambda row: str(row["agent"])),
    Column("VERDICT", lambda row: str(row["verdict"])),
    Column("OBSTACLES", lambda row: "; ".join(row["obstacles"])),
)


@click.command(short_help="say why a task is where it is, agent by agent")
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def explain(settings: Settings, task: str, as_json: bool) -> None:
    """Say why TASK (t17, 17 or its unique name) is where it is, and what happens next.

    Verdicts: fits; full (would fit if others ended); never (not as the agent is now); away.
    """
    rows, _ = query(settings, "explain", {"task": task})
    row = rows[0]
    if as_json:
        show_json(row)
        return
    click.echo(one_line(f"{row['task']} is {row['state']}: {row['summary']}"))
    for label, key in (("policy", "policy"), ("next", "next")):
        if row.get(key):
            click.echo(f"{label}: {one_line(str(row[key]))}")
    if row.get("agents"):
        show_table(AGENT_COLUMNS, row["agents"], "")


@click.command(short_help="end tasks")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), metavar="SECONDS", help="Between asking and stopping."
)
@click.pass_obj
def kill(settings: Settings, tasks: tuple[str, ...], grace_s: float | None) -> None:
    """End every TASK (t17, 17 or its unique name). One that has ended is left alone."""

    async def work(operator: Operator) -> None:
        ids = [await find_task(operator, text) for text in tasks]
        await operator.kill(ids, grace_s=grace_s)

    with_operator(settings, work)
    note(f"asked to end {', '.join(tasks)}")
