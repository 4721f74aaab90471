"""What people and programs get to see: tables for eyes, JSON for programs, one sentence for errors.

A table is plain aligned text, the same on every run. Where stdout is a terminal and rich is
installed, rich lays it out and colours the states; never in a pipe, and not with NO_COLOR set.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

Row = Mapping[str, Any]

COLOURS: Final = {
    "PENDING": "yellow",
    "STAGING": "cyan",
    "STARTING": "cyan",
    "RUNNING": "green",
    "KILLING": "magenta",
    "UNREACHABLE": "red",
    "FINISHED": "dim",
    "FAILED": "red",
    "KILLED": "dim",
    "ERROR": "red",
    "DROPPED": "red",
    "GONE": "red",
    "READY": "green",
    "DRAINING": "yellow",
    "RECOVERING": "yellow",
    "CONNECTED": "green",
    "DISCONNECTED": "yellow",
    "ok": "green",
    "warn": "yellow",
    "missing": "red",
    "broken": "red",
}
"""State, or status of a plugin or a check, to its colour on a terminal."""


class Column(NamedTuple):
    """One column of a table: its title, its text for a row, and whether it is right-aligned."""

    title: str
    text: Callable[[Row], str]
    right: bool = False


def format_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return title line and rows as aligned text without trailing spaces, ending in a newline."""
    lines = [[column.title for column in columns]]
    lines += [[one_line(column.text(row)) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = ""
    for line in lines:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def show_table(columns: Sequence[Column], rows: Sequence[Row], empty: str) -> None:
    """Print a table, or the sentence `empty` to stderr if there is no row."""
    if not rows:
        click.echo(empty, err=True)
    elif fancy():
        _show_rich(columns, rows)
    else:
        click.echo(format_table(columns, rows), nl=False)


def fancy() -> bool:
    """Return whether stdout is a terminal for which rich may lay out and colour."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    import importlib.util

    return importlib.util.find_spec("rich") is not None


def _show_rich(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        cells = [one_line(column.text(row)) for column in columns]
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in cells))
    Console().print(table)


def show_json(value: object) -> None:
    """Print `value` as JSON; bytes become base64 text."""
    click.echo(to_json(value))


def to_json(value: object) -> str:
    """Return JSON text with the keys in the order in which they came."""
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=2)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)


def one_line(text: str) -> str:
    """Return text safe to show in one line: a task's name or message cannot move the cursor."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def note(message: str) -> None:
    """Tell a person something that is not the result: to stderr."""
    click.echo(one_line(message), err=True)


def format_age(seconds: float) -> str:
    """Return `5s`, `3m`, `2h` or `4d`."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def format_fields(value: object) -> str:
    """Return a mapping as `a=1 b=x`, a list as `a b`, None as nothing, anything else as text."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_word(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return str(value)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_word(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return format(value, ".10g") if isinstance(value, float) else str(value)
