"""Commands with bugs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from edgerm_core.testing.contracts.command import CommandContract

SOURCE = '''
from collections.abc import Iterable
import click
from edgerm_core.hookspecs import hookimpl

@click.group()
def planted() -> None:
    """Count tasks."""

@planted.command()
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.pass_obj
def count(settings, everything: bool) -> None:
    """Count them."""
    from edgerm_core.cli.asking import query
    print(query(settings, "tasks", {"all": everything})[1])

@hookimpl
def commands() -> Iterable[click.Command]:
    yield planted
'''


class Sound(CommandContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    old: ClassVar[str] = ""
    new: ClassVar[str] = ""

    yields: ClassVar[str] = "planted"

    @pytest.fixture
    def plugin_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        assert self.old in SOURCE
        name = f"module_of_{type(self).__name__.lower()}"
        source = SOURCE.replace("yield planted", f"yield {self.yields}")
        (tmp_path / f"{name}.py").write_text(source.replace(self.old, self.new) if self.old else source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return name


class TestSound(Sound):
    pass


class TestTakesANameOfCore(Sound):
    old, new = "@click.group()", '@click.group(name="ps")'
    caught_by = "test_no_name_is_taken_by_core_or_twice"
    says = "edgerm has a command of that name"


class TestHasAnUglyName(Sound):
    old, new = "@click.group()", '@click.group(name="Planted_Tasks")'
    caught_by = "test_there_are_commands_with_names_as_people_type_them"
    says = "Planted_Tasks"


class TestReturnsAFunction(Sound):
    yields = "print"
    caught_by = "test_there_are_commands_with_names_as_people_type_them"


class TestIsThereTwice(Sound):
    yields = "from (planted, planted)"
    caught_by = "test_no_name_is_taken_by_core_or_twice"


class TestSaysNotWhatASubcommandIsFor(Sound):
    old, new = '"""Count them."""', ""
    caught_by = "test_each_says_in_one_line_what_it_is_for"
    says = "planted count has no help"


class TestExplainsNoOption(Sound):
    old, new = ', help="Those that have ended, too."', ""
    caught_by = "test_each_option_is_explained"
    says = "planted count --all has no help"


class TestImportsTheClient(Sound):
    old, new = "import click\n", "import click\nimport edgerm_core.client.operator\n"
    caught_by = "test_help_works_without_a_master_and_imports_nothing_heavy"


class TestAsksTheMasterAtOnce(Sound):
    old, new = (
        '"""Count tasks."""',
        '"""Count tasks."""\n    raise SystemExit("no master answers")',
    )
    caught_by = "test_help_works_without_a_master_and_imports_nothing_heavy"
    says = "no master answers"


class TestTakesAnyOption(Sound):
    old, new = (
        "@click.group()",
        """@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def words() -> None:
    \"\"\"Do nothing.\"\"\"

@click.group()""",
    )
    yields = "words"
    caught_by = "test_an_option_it_does_not_know_is_a_usage_error"
