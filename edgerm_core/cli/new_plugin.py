"""Writes a new plugin: a distribution of its own, out of the templates in `templates/`.

A template is a file `<name>.tmpl`, in which `{{word}}` stands for a value. `common/` is for every kind;
a kind's own directory adds the rest, and two texts that go into others: `summary` and `usage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from edgerm_core import __version__

TEMPLATES: Final = Path(__file__).parent / "templates"

KINDS: Final = {
    "transport": "carries messages between the master and everybody else",
    "executor": "runs tasks on agents",
    "scheduler": "decides on the master which task goes where",
    "device_driver": "finds devices on agents and hands them to tasks",
    "store": "keeps the master's records",
    "observer": "is told of every change on the master",
    "command": "adds a command to `edgerm`",
}
"""Kind of plugin to what it does; each has a directory of templates."""

NEEDS: Final = {"transport": ("anyio>=4.7",)}
"""What a kind's template needs beyond what edgerm-core brings."""

MAX_NAME_CHARS: Final = 24
"""Short enough to be typed, and for lines of code with it to stay within their length."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_WORD: Final = re.compile(r"\{\{(\w+)\}\}")


def check_plugin_name(name: str) -> str:
    """Return the name if config, commands and Python can all use it.

    Raises:
        click.BadParameter: if not.
    """
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise click.BadParameter(
            f"{name!r} is not a plugin name: use lower-case letters and digits, joined by single '-', "
            f"starting with a letter, {MAX_NAME_CHARS} characters at most, such as 'my-lab'"
        )
    return name


def core_range(version: str = __version__) -> str:
    """Return which versions of edgerm-core a plugin that is written for this one works with."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def values_of(kind: str, name: str) -> dict[str, str]:
    """Return what the words in the templates stand for."""
    entry = f"{kind}-{name}".replace("_", "-")
    values = {
        "kind": kind,
        "name": name,
        "entry": entry,
        "distribution": f"edgerm-{entry}",
        "package": f"edgerm_{entry}".replace("-", "_"),
        "class": "".join(part.capitalize() for part in name.split("-")),
        "dependencies": ", ".join(
            f'"{need}"' for need in (f"edgerm-core{core_range()}", *NEEDS.get(kind, ()))
        ),
    }
    for text in ("summary", "usage"):
        values[text] = fill((TEMPLATES / kind / f"{text}.tmpl").read_text(encoding="utf-8"), values)
    return {**values, "summary": values["summary"].strip()}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the template with every word replaced.

    Raises:
        KeyError: if one has no value.
    """
    return _WORD.sub(lambda found: values[found[1]], template)


def render(kind: str, name: str) -> dict[str, str]:
    """Return the files of a new plugin, path within its directory to content, sorted."""
    values = values_of(kind, name)
    files: dict[str, str] = {}
    for part in ("common", kind):
        for path in (TEMPLATES / part).rglob("*.tmpl"):
            inside = path.relative_to(TEMPLATES / part).with_suffix("").as_posix()
            inside = re.sub(r"^package/", f"{values['package']}/", inside)
            inside = re.sub(r"^gitignore$", ".gitignore", inside)
            files[inside] = fill(path.read_text(encoding="utf-8"), values)
    del files["summary"], files["usage"]
    if kind == "command":
        del files["tests/test_plugin.py"]  # Its contract has these rules in it.
    return dict(sorted(files.items()))


def write(files: Mapping[str, str], directory: Path) -> None:
    """Write the files below a directory that is not there yet.

    Raises:
        OSError: if it is there, or cannot be written.
    """
    directory.mkdir(parents=True)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
