"""`edgerm ps`, `agents` and `frameworks`: what the master knows, as rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from edgerm_core.cli.asking import query
from edgerm_core.cli.output import Column, Row, format_age, format_fields, note, show_json, show_table
from edgerm_core.cli.settings import Settings
from edgerm_core.limits import QUERY_DEFAULT_ROWS, QUERY_MAX_ROWS
from edgerm_core.tasks import TaskState

STATES: Final = tuple(state.name for state in TaskState)


def _text(key: str) -> Column:
    return Column(key.upper(), lambda row: format_fields(row.get(key)))


def _number(key: str, title: str = "") -> Column:
    return Column(title or key.upper(), lambda row: format_fields(row.get(key)), right=True)


def task_columns(now: float) -> Sequence[Column]:
    """Return the columns of `edgerm ps`; `now` in Unix seconds is what ages are counted from."""
    return (
        _text("id"),
        _text("name"),
        Column("FRAMEWORK", lambda row: str(row.get("framework") or row.get("framework_id") or "")),
        _text("state"),
        Column("AGENT", lambda row: str(row.get("agent") or row.get("agent_id") or "")),
        _text("executor"),
        _text("resources"),
        Column("USES", lambda row: _uses(row.get("usage"))),
        _number("restarts"),
        Column("SINCE", lambda row: format_age(now - float(row.get("changed_at") or now)), right=True),
        Column("WHY", _why),
    )


def _uses(usage: Any) -> str:
    """Return `0.42 cpus, 12.3 MiB, net 1.2k/340`: processors busy, memory, bytes received and sent."""
    if not isinstance(usage, Mapping):
        return ""
    parts: list[str] = []
    if usage.get("cpus") is not None:
        parts.append(f"{usage['cpus']:.2f} cpus")
    elif usage.get("cpu_s") is not None:
        parts.append(f"{usage['cpu_s']:.1f} s cpu")
    if usage.get("mem_mib") is not None:
        parts.append(f"{usage['mem_mib']:.1f} MiB")
    if usage.get("net_rx_bytes") is not None:
        parts.append(f"net {_amount(usage['net_rx_bytes'])}/{_amount(usage.get('net_tx_bytes') or 0)}")
    return ", ".join(parts)


def _amount(count: float) -> str:
    for unit in ("", "k", "M"):
        if count < 1000:
            return f"{count:.0f}{unit}" if not unit or count >= 10 else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}G"


def _why(row: Row) -> str:
    """Return the reason, and after it what the message adds to it."""
    reason, message = str(row.get("reason") or ""), str(row.get("message") or "")
    first = message.splitlines()[0] if message else ""
    return f"{reason}: {first}" if reason and first else reason or first


VIA: Final = _text("via")
"""The gateway of an agent; only shown where one has a gateway."""

AGENT_COLUMNS: Final = (
    Column("AGENT", lambda row: str(row.get("name") or row.get("id") or "")),
    _text("id"),
    _text("state"),
    _number("tasks"),
    Column("FREE", lambda row: format_fields(row.get("free"))),
    Column("OF", lambda row: format_fields(row.get("totals"))),
    Column("EXECUTORS", lambda row: " ".join(map(_executor, row.get("executors") or ()))),
    Column("DEVICES", lambda row: " ".join(map(_device, row.get("devices") or ()))),
    Column("HEARD", lambda row: _heard(row.get("last_heard_s")), right=True),
)


def _executor(item: object) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    return f"{item.get('name')}" + ("" if item.get("healthy", True) else "(unhealthy)")


def _device(item: object) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    return f"{item.get('id')}" + ("" if item.get("healthy", True) else "(unhealthy)")


def _heard(seconds: Any) -> str:
    return "" if seconds is None else f"{format_age(float(seconds))} ago"


FRAMEWORK_COLUMNS: Final = (
    _text("id"),
    _text("name"),
    _text("role"),
    _text("state"),
    _number("weight"),
    _number("pending"),
    _number("running"),
    _number("ended"),
    Column("SHARE", lambda row: f"{100 * float(row.get('share') or 0):.1f}%", right=True),
    _text("dominant"),
    _text("allocated"),
)


def show_rows(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], total: int, as_json: bool, empty: str
) -> None:
    """Print rows for a person or as a JSON array, and say on stderr when there are more."""
    if as_json:
        show_json(list(rows))
    else:
        show_table(columns, rows, empty)
    if total > len(rows):
        note(f"{len(rows)} of {total} shown; --limit shows more, up to {QUERY_MAX_ROWS}")


LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, QUERY_MAX_ROWS),
    default=QUERY_DEFAULT_ROWS,
    show_default=True,
    help="Show at most so many.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")


@click.command(short_help="list tasks")
@click.option("--all", "-a", "ended", is_flag=True, help="Ended tasks too.")
@click.option("--framework", metavar="NAME", help="Only tasks of this framework (id or name).")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES, case_sensitive=False),
    help="Only tasks in this state; may be given several times.",
)
@LIMIT
@AS_JSON
@click.pass_obj
def ps(
    settings: Settings,
    ended: bool,
    framework: str | None,
    states: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """List tasks that have not ended; with --all, or with a final --state, ended ones too."""
    args: dict[str, Any] = {"limit": limit, "newest": True}
    args["ended"] = ended or any(TaskState[name].terminal for name in states)
    if framework:
        args["framework"] = framework
    if states:
        args["states"] = list(states)
    rows, total = query(settings, "tasks", args)
    rows.reverse()  # The newest, should there be more than the limit, and these in order of age.
    empty = (
        "no tasks" if ended or states or framework else "no tasks (edgerm ps --all shows ended ones too)"
    )
    show_rows(task_columns(time.time()), rows, total, as_json, empty)


@click.command(short_help="list agents")
@LIMIT
@AS_JSON
@click.pass_obj
def agents(settings: Settings, limit: int, as_json: bool) -> None:
    """List agents: what they have, what is free, which executors work there, when they were heard.

    Why an executor does not work is said below the table.
    """
    rows, total = query(settings, "agents", {"limit": limit})
    columns = list(AGENT_COLUMNS)
    if any(row.get("via") for row in rows):
        columns.insert(2, VIA)
    show_rows(columns, rows, total, as_json, "no agents have joined")
    if not as_json:
        for row in rows:
            for executor in row.get("executors") or ():
                if not executor.get("healthy", True):
                    note(f"{row['name']}: executor {executor['name']}: {executor.get('problem')}")


@click.command(short_help="list frameworks and their fair shares")
@LIMIT
@AS_JSON
@click.pass_obj
def frameworks(settings: Settings, limit: int, as_json: bool) -> None:
    """List frameworks: tasks waiting, running and ended, and the dominant share each holds."""
    rows, total = query(settings, "frameworks", {"limit": limit})
    show_rows(FRAMEWORK_COLUMNS, rows, total, as_json, "no frameworks are known")
