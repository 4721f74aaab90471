"""What every command of a plugin must do.

    class TestMyCommand(CommandContract):
        @pytest.fixture
        def plugin_module(self): return "my_plugin.plugin"

What the command does is its own affair; the suite asks that it can be found, explains itself, and
costs those nothing who do not use it. All of `plugin.PluginContract` is part of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Final

import click
import pytest

from edgerm_core.cli.main import COMMANDS
from edgerm_core.testing.contracts.plugin import PROCESS_TIMEOUT_S, PluginContract, heavy_among

NOWHERE: Final = "ws://127.0.0.1:1"
"""Nobody listens there."""

_HELP: Final = """
import importlib, json, sys
import click, edgerm_core.cli.main, edgerm_core.plugins
before = set(sys.modules)
path = json.loads(sys.argv[2])
command = next(c for c in importlib.import_module(sys.argv[1]).commands() if c.name == path[0])
try:
    command.main([*path[1:], "--help"], prog_name=path[0], standalone_mode=False)
finally:
    print(json.dumps(sorted(set(sys.modules) - before)))
"""


def family(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the command and all below it, each with its words on the command line."""
    words = (*path, command.name or "")
    yield words, command
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from family(below, *words)


class CommandContract(PluginContract):
    """Subclass it in a test module, as `Test…`, and override `plugin_module`."""

    @pytest.fixture
    def commands(self, plugin: ModuleType) -> list[click.Command]:
        """All that the hook returns."""
        return list(plugin.commands())

    def test_there_are_commands_with_names_as_people_type_them(self, commands: list[click.Command]) -> None:
        assert commands
        for command in commands:
            assert isinstance(command, click.Command)
            assert re.fullmatch(r"[a-z][a-z0-9-]*", command.name or ""), command.name

    def test_no_name_is_taken_by_core_or_twice(self, commands: list[click.Command]) -> None:
        names = [command.name for command in commands]
        assert not set(names) & set(COMMANDS), "edgerm has a command of that name: this one is refused"
        assert len(set(names)) == len(names)

    def test_each_says_in_one_line_what_it_is_for(self, commands: list[click.Command]) -> None:
        for command in commands:
            for words, each in family(command):
                assert each.get_short_help_str(100), f"{' '.join(words)} has no help"

    def test_each_option_is_explained(self, commands: list[click.Command]) -> None:
        for command in commands:
            for words, each in family(command):
                for parameter in each.params:
                    if isinstance(parameter, click.Option):
                        assert parameter.help, f"{' '.join(words)} {parameter.opts[0]} has no help"

    def test_help_works_without_a_master_and_imports_nothing_heavy(
        self, commands: list[click.Command], plugin_module: str
    ) -> None:
        for command in commands:
            for words, _ in family(command):
                done = subprocess.run(
                    [sys.executable, "-c", _HELP, plugin_module, json.dumps(words)],
                    capture_output=True,
                    text=True,
                    timeout=PROCESS_TIMEOUT_S,
                    env={**os.environ, "EDGERM_MASTER": NOWHERE},
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                assert done.stdout.startswith("Usage: ")
                imported = json.loads(done.stdout.splitlines()[-1])
                assert not heavy_among(imported, plugin_module.partition(".")[0]), words

    def test_an_option_it_does_not_know_is_a_usage_error(self, commands: list[click.Command]) -> None:
        for command in commands:
            with pytest.raises(click.UsageError):
                command.main(["--no-such-option"], prog_name=command.name, standalone_mode=False)
