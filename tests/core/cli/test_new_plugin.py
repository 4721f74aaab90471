"""What `edgerm plugin new` writes: clean code under any name. That it works is tests/e2e's affair."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from packaging.specifiers import SpecifierSet

from edgerm_core import __version__
from edgerm_core.cli.new_plugin import (
    KINDS,
    MAX_NAME_CHARS,
    NEEDS,
    TEMPLATES,
    check_plugin_name,
    core_range,
    fill,
    render,
    write,
)
from edgerm_core.interfaces import API_VERSION
from edgerm_core.plugins import HOOK_OF_KIND

ROOT = Path(__file__).resolve().parents[3]
SHORTEST, LONGEST = "a", "x" * MAX_NAME_CHARS


def test_there_is_a_template_for_every_hook() -> None:
    assert sorted(KINDS) == sorted(["command", *HOOK_OF_KIND])
    assert sorted(KINDS) == sorted(path.name for path in TEMPLATES.iterdir() if path.name != "common")
    assert NEEDS.keys() <= KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_has_what_every_plugin_has(kind: str) -> None:
    files = render(kind, "my-lab")
    package = f"edgerm_{kind}_my_lab"
    wanted = {"pyproject.toml", "README.md", "tests/test_contract.py"}
    wanted |= {f"{package}/{name}" for name in ("__init__.py", "py.typed", "plugin.py")}
    if kind != "command":
        wanted |= {f"{package}/config.py", "tests/test_plugin.py"}
    assert wanted <= files.keys()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == f"edgerm-{kind}-my-lab".replace("_", "-")
    (entry,) = project["entry-points"]["edgerm"].items()
    assert entry == (f"{kind}-my-lab".replace("_", "-"), f"{package}.plugin")
    assert f"edgerm-core{core_range()}" in project["dependencies"]
    for name, text in files.items():
        assert "{{" not in text, name
        assert text.endswith("\n") or not text, name


@pytest.mark.parametrize("name", ["a", "my-lab", "drf2", "x" * MAX_NAME_CHARS])
def test_names_that_can_be_typed_are_taken(name: str) -> None:
    assert check_plugin_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "2nd", "my_lab", "my--lab", "-lab", "lab-", "a b", "../x", "x" * (MAX_NAME_CHARS + 1)]
)
def test_other_names_are_refused_with_what_a_name_is(name: str) -> None:
    with pytest.raises(click.BadParameter, match="lower-case letters and digits"):
        check_plugin_name(name)


def test_a_word_without_a_value_is_an_error() -> None:
    assert fill("{{a}} {b} {{a}}", {"a": "1"}) == "1 {b} 1"
    with pytest.raises(KeyError):
        fill("{{b}}", {"a": "1"})


@pytest.mark.parametrize(
    ("version", "good", "bad"),
    [("0.3.1", ["0.3.0", "0.3.9"], ["0.2.9", "0.4.0"]), ("2.3.0", ["2.3.0", "2.9.0"], ["2.2.0", "3.0.0"])],
)
def test_the_range_of_core_ends_where_plugins_may_break(
    version: str, good: list[str], bad: list[str]
) -> None:
    range_ = SpecifierSet(core_range(version))
    assert [v in range_ for v in (version, *good)] == [True] * (len(good) + 1)
    assert [v in range_ for v in bad] == [False] * len(bad)


def test_the_range_of_core_holds_this_one() -> None:
    assert __version__ in SpecifierSet(core_range())
    assert API_VERSION == 1, "say in docs/writing-a-plugin.md what plugins must change"


def test_nothing_is_written_over(tmp_path: Path) -> None:
    write({"a/b.txt": "1\n"}, tmp_path / "new")
    assert (tmp_path / "new" / "a" / "b.txt").read_text() == "1\n"
    with pytest.raises(FileExistsError):
        write({}, tmp_path / "new")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [SHORTEST, LONGEST])
def test_what_is_written_is_formatted_linted_and_typed_under_any_name(name: str, tmp_path: Path) -> None:
    """The plugin's own settings count, and nothing of this repository."""
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    for kind in KINDS:
        directory = tmp_path / kind
        write(render(kind, name), directory)
        for tool in (
            ("ruff", "check", "--no-cache", "."),
            ("ruff", "format", "--no-cache", "--check", "."),
            ("mypy", "--cache-dir", str(tmp_path / "mypy"), "."),
        ):
            done = subprocess.run(
                [sys.executable, "-m", *tool],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, f"{kind} {tool}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_says_how_it_is_used(kind: str) -> None:
    text = render(kind, "my-lab")["README.md"]
    for toml in re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S):
        tomllib.loads(toml)
    assert "my-lab" in text
