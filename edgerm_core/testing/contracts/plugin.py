"""What every plugin must do, whatever it provides: the rules for `plugin.py` and the config section.

    class TestPlugin(PluginContract):
        @pytest.fixture
        def plugin_module(self): return "my_plugin.plugin"

It stands beside the suite of your kind. The plugin must be importable; it need not be installed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import msgspec
import pytest

from edgerm_core.config import Config, parse_config
from edgerm_core.errors import ConfigError, PluginError
from edgerm_core.interfaces import DeviceDriver, Executor, Provider
from edgerm_core.observers import Observer
from edgerm_core.plugins import HOOK_OF_KIND, INTERFACE_OF_KIND, Plugins

PROCESS_TIMEOUT_S: Final = 60.0

MAX_SUMMARY_CHARS: Final = 100
"""It is one line in a table."""

MIN_SENTENCE_CHARS: Final = 20

LIGHT: Final = frozenset({"click", "edgerm_core", "msgspec", "pluggy"})
"""Beside the standard library and its own package: what a plugin may import before it is used."""

HEAVY: Final = (
    "asyncio",
    "concurrent",
    "edgerm_core.agent",
    "edgerm_core.client",
    "edgerm_core.codec",
    "edgerm_core.master",
    "edgerm_core.testing",
    "http",
    "multiprocessing",
    "sqlite3",
    "ssl",
    "unittest",
    "xml",
)
"""And what it may not, although it is at hand: whoever loads all plugins would wait for it."""

_WHAT_IS_IMPORTED: Final = """
import importlib, json, sys
import click, msgspec
import edgerm_core.cli.main, edgerm_core.config, edgerm_core.observers, edgerm_core.plugins
before = set(sys.modules)
plugin = importlib.import_module(sys.argv[1])
for name in json.loads(sys.argv[2]):
    if hasattr(plugin, name):
        list(getattr(plugin, name)())
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def heavy_among(modules: Iterable[str], own: str) -> list[str]:
    """Return those of the modules that a plugin may not import before it is used.

    Parameters:
        own: the plugin's own package.
    """
    found = []
    for name in modules:
        top = name.partition(".")[0]
        known = top in LIGHT or top == own or top in sys.stdlib_module_names
        if not known or any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY):
            found.append(name)
    return found


class PluginContract:
    """Subclass it in a test module, as `Test…`, and override `plugin_module`."""

    # --- to override --------------------------------------------------------------------------

    @pytest.fixture
    def plugin_module(self) -> str:
        """The dotted name that the entry point has."""
        raise NotImplementedError("override the fixture `plugin_module`")

    @pytest.fixture
    def config_text(self) -> str:
        """The config with which the factories are tried, where defaults are not enough."""
        return ""

    # --- the suite ----------------------------------------------------------------------------

    @pytest.fixture
    def plugin(self, plugin_module: str) -> ModuleType:
        return importlib.import_module(plugin_module)

    @pytest.fixture
    def providers(self, plugin: ModuleType) -> list[tuple[str, Provider[Any]]]:
        """(kind, provider) of all that it provides."""
        return [
            (kind, provider)
            for kind, hook in HOOK_OF_KIND.items()
            for provider in getattr(plugin, hook, list)()
        ]

    def test_it_is_loaded_and_adds_something(self, plugin: ModuleType) -> None:
        plugins = Plugins(Config())
        plugins.add(plugin, "under-test", "under-test", "1")
        (info,) = plugins.infos
        assert info.status == "loaded", info.problem
        assert info.provides, "none of its hooks adds anything: are they marked with @hookimpl?"
        list(plugins.commands())
        (info,) = plugins.infos
        assert info.status == "loaded", info.problem

    def test_each_provider_says_in_one_line_what_it_is(
        self, providers: list[tuple[str, Provider[Any]]]
    ) -> None:
        for _, provider in providers:
            assert provider.summary.strip(), f"{provider.name} has no summary"
            assert "\n" not in provider.summary
            assert len(provider.summary) <= MAX_SUMMARY_CHARS

    def test_a_config_section_is_frozen_strict_and_explained(
        self, providers: list[tuple[str, Provider[Any]]]
    ) -> None:
        for kind, provider in providers:
            struct = provider.config_type
            if struct is None:
                continue
            section = f"[{kind}.{provider.name}]"
            assert struct.__struct_config__.frozen, f"{section}: the type is not frozen"
            text = inspect.getdoc(struct) or ""
            for field in msgspec.structs.fields(struct):
                assert field.name in text, f"{section}: the docstring says nothing about {field.name}"
            config = parse_config(f"{section}\nno_such_key = 1\n")
            with pytest.raises(ConfigError, match="no_such_key"):
                config.section(kind, provider.name, struct)

    def test_each_factory_makes_what_its_hook_promises(
        self,
        providers: list[tuple[str, Provider[Any]]],
        config_text: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The suite of its kind may never call the factory. It may say what is missing on this machine."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("EDGERM_AGENT_DATA", str(tmp_path))
        config = parse_config(config_text)
        for kind, provider in providers:
            try:
                struct = provider.config_type
                section = None if struct is None else config.section(kind, provider.name, struct)
            except ConfigError as error:
                pytest.fail(f"{error}: override the fixture `config_text` with a section that works")
            try:
                made = provider.create(section)
            except PluginError as error:
                if len(str(error)) < MIN_SENTENCE_CHARS:
                    pytest.fail(f"{error}: it must say what is missing and how to get it")
                continue
            what = f"the factory of {kind} {provider.name} made {type(made).__name__}"
            interface = INTERFACE_OF_KIND.get(kind)
            if interface is None:
                assert callable(made), f"{what}, expected a function that opens a store"
            else:
                assert isinstance(made, interface), f"{what}, expected {interface.__name__}"
            if isinstance(made, Executor | DeviceDriver):
                assert made.name == provider.name, f"{what} with another name: nobody would find it"
                anyio.run(made.close)
            if isinstance(made, Observer):
                made.close()
            if kind == "transport":
                assert made.schemes == provider.schemes, f"{what} with other schemes"

    def test_loading_it_imports_nothing_heavy(self, plugin_module: str) -> None:
        """It is imported by every daemon, whether it uses it or not."""
        hooks = json.dumps(["commands", *HOOK_OF_KIND.values()])
        done = subprocess.run(
            [sys.executable, "-c", _WHAT_IS_IMPORTED, plugin_module, hooks],
            capture_output=True,
            text=True,
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = heavy_among(json.loads(done.stdout.splitlines()[-1]), plugin_module.partition(".")[0])
        assert not found, "import it in the factory, or in the function that needs it"
