from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from edgerm_core.plugins import BUILTINS


def test_json_lists_the_built_ins_with_stable_keys(invoke: Callable[..., Result]) -> None:
    rows = json.loads(invoke("plugins", "--json").stdout)
    assert [row["name"] for row in rows[: len(BUILTINS)]] == list(BUILTINS)
    for row in rows:
        assert list(row) == ["name", "distribution", "version", "provides", "status", "problem"]


def test_table_shows_what_each_provides(invoke: Callable[..., Result]) -> None:
    lines = invoke("plugins").stdout.splitlines()
    assert lines[0].split() == ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES", "PROBLEM"]
    assert any(line.startswith("sqlite ") and "store sqlite" in line for line in lines)


def test_plugin_whose_commands_fail_is_broken(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    import types

    from edgerm_core import hookspecs
    from edgerm_core.plugins import Plugins, load_plugins

    def commands() -> list[object]:
        raise RuntimeError("no display")

    bad = types.ModuleType("bad")
    bad.commands = hookspecs.hookimpl(commands)  # type: ignore[attr-defined]

    def load(config: object) -> Plugins:
        plugins = load_plugins(config)  # type: ignore[arg-type]
        plugins.add(bad, "bad", "edgerm-bad", "1")
        return plugins

    monkeypatch.setattr("edgerm_core.plugins.load_plugins", load)
    rows = json.loads(invoke("plugins", "--json").stdout)
    assert rows[-1]["status"] == "broken"
    assert rows[-1]["problem"] == "RuntimeError: no display"
