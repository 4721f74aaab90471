"""Plugins that break the rules for every plugin."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from edgerm_core.testing.contracts.plugin import PluginContract

SOURCE = '''
from collections.abc import Iterable
import msgspec
from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Executor, Provider, Scheduler, Transport

class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[executor.planted]`.

    Attributes:
        size: how large, in bytes.
    """

    size: int = 1

def create(config):
    from edgerm_core.testing.fakes import FakeExecutor
    return FakeExecutor("planted")

@hookimpl
def executors() -> Iterable[Provider[Executor]]:
    yield Provider("planted", create, Config, "runs nothing")
'''


class Sound(PluginContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    old: ClassVar[str] = ""
    new: ClassVar[str] = ""

    @pytest.fixture
    def plugin_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        assert self.old in SOURCE
        package = tmp_path / f"package_of_{type(self).__name__.lower()}"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(SOURCE.replace(self.old, self.new) if self.old else SOURCE)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return f"{package.name}.plugin"


class TestSound(Sound):
    pass


class TestHasNoMark(Sound):
    old, new = "@hookimpl\n", ""
    caught_by = "test_it_is_loaded_and_adds_something"
    says = "executors is not marked with @hookimpl"


class TestHasAHookWithAnotherName(Sound):
    old, new = "def executors()", "def executers()"
    caught_by = "test_it_is_loaded_and_adds_something"
    says = "executers"


class TestIsOfAnotherVersion(Sound):
    old, new = '"runs nothing")', '"runs nothing", api_version=99)'
    caught_by = "test_it_is_loaded_and_adds_something"
    says = "was written for interface version 99"


class TestSaysNothing(Sound):
    old, new = '"runs nothing"', '""'
    caught_by = "test_each_provider_says_in_one_line_what_it_is"
    says = "planted has no summary"


class TestLetsItsConfigBeChanged(Sound):
    old, new = "frozen=True, ", ""
    caught_by = "test_a_config_section_is_frozen_strict_and_explained"
    says = "[executor.planted]: the type is not frozen"


class TestOverlooksTypingErrors(Sound):
    old, new = ", forbid_unknown_fields=True", ""
    caught_by = "test_a_config_section_is_frozen_strict_and_explained"
    says = "DID NOT RAISE"


class TestExplainsNoKey(Sound):
    old, new = "    size: int = 1", "    weight: int = 1"
    caught_by = "test_a_config_section_is_frozen_strict_and_explained"
    says = "the docstring says nothing about weight"


class TestImportsAnEventLoop(Sound):
    old, new = "import msgspec\n", "import asyncio\nimport msgspec\n"
    caught_by = "test_loading_it_imports_nothing_heavy"
    says = "import it in the factory"


class TestImportsALibrary(Sound):
    old, new = "import msgspec\n", "import anyio\nimport msgspec\n"
    caught_by = "test_loading_it_imports_nothing_heavy"
    says = "import it in the factory"


class TestHasAFactoryThatRaises(Sound):
    old, new = "edgerm_core.testing.fakes", "edgerm_core.testing.fake"
    caught_by = "test_each_factory_makes_what_its_hook_promises"
    says = "No module named 'edgerm_core.testing.fake'"


class TestHasAFactoryThatReturnsNothing(Sound):
    old, new = "return FakeExecutor", "FakeExecutor"
    caught_by = "test_each_factory_makes_what_its_hook_promises"
    says = "the factory of executor planted made NoneType, expected Executor"


class TestMakesWhatHasAnotherName(Sound):
    old, new = 'FakeExecutor("planted")', 'FakeExecutor("plantd")'
    caught_by = "test_each_factory_makes_what_its_hook_promises"
    says = "made FakeExecutor with another name"


class TestWantsASectionThatTheSuiteHasNot(Sound):
    old, new = "size: int = 1", "size: int"
    caught_by = "test_each_factory_makes_what_its_hook_promises"
    says = "override the fixture `config_text`"
