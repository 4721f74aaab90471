"""The command that the plugin adds."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from click.testing import CliRunner
from edgerm_demo import plugin, show

HEAVY = (
    "anyio",
    "numpy",
    "wasmtime",
    "websockets",
    "vega_datasets",
    "edgerm_core.client",
    "edgerm_demo.show",
)


def test_plugin_is_found_by_its_entry_point() -> None:
    [entry] = entry_points(group="edgerm", name="demo")
    assert entry.load() is plugin


def test_hook_adds_one_command() -> None:
    assert [command.name for command in plugin.commands()] == ["demo"]


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [([], (False, False)), (["--keep"], (True, False)), (["--plain"], (False, True))],
)
def test_options_reach_the_demonstration(
    arguments: list[str], passed: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[bool, bool]] = []

    async def run_demo(keep: bool, plain: bool) -> None:
        calls.append((keep, plain))

    monkeypatch.setattr(show, "run_demo", run_demo)
    result = CliRunner().invoke(plugin.demo, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert calls == [passed]


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    script = f"import sys, edgerm_demo.plugin; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert found.stdout.decode().strip() == "[]"
