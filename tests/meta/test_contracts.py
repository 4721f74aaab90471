"""Every hook has its contract kit, the kit is documented, and everything that we provide runs it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core import hookspecs
from edgerm_core.plugins import BUILTINS, HOOK_OF_KIND
from edgerm_core.testing import contracts
from edgerm_core.testing.contracts import KITS
from edgerm_core.testing.contracts.plugin import PluginContract

ROOT = Path(__file__).resolve().parents[2]
HOOKS = sorted(name for name, value in vars(hookspecs).items() if hasattr(value, "edgerm_spec"))
PLUGINS = sorted(ROOT.glob("plugins/*/edgerm_*/plugin.py"))
EXAMPLES = sorted(ROOT.glob("examples/plugins/*/edgerm_*/plugin.py"))
PAGE = ROOT / "docs" / "writing-a-plugin.md"


def kit_class(hook: str) -> str:
    return KITS[hook].rpartition(".")[2]


def hooks_of(source: Path) -> set[str]:
    """Return the hooks that a plugin module implements."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in HOOKS}


def kits_run_in(directory: Path, pattern: str = "test_*.py") -> set[str]:
    """Return the classes from which the test classes below a directory derive, also by way of others."""
    bases: dict[str, set[str]] = {}
    for path in directory.rglob(pattern):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                bases.setdefault(node.name, set()).update(names)
    found: set[str] = set()
    ahead = [name for name in bases if name.startswith("Test")]
    while ahead:
        for name in bases.get(ahead.pop(), ()):
            if name not in found:
                found.add(name)
                ahead.append(name)
    return found


def provided() -> Iterator[object]:
    """Yield (what, where its tests are, their file name, hook) of all that we provide."""
    for name, module in BUILTINS.items():
        source = ROOT / f"{module.replace('.', '/')}.py"
        for hook in sorted(hooks_of(source)):
            tests = ROOT / "tests" / "core" / "builtin"
            yield pytest.param(tests, f"test_{source.name}", hook, id=f"{name}-{hook}")
    for source in PLUGINS:
        directory = source.parents[1].name
        for hook in sorted(hooks_of(source)):
            tests = ROOT / "tests" / "plugins" / directory
            yield pytest.param(tests, "test_*.py", hook, id=f"{directory}-{hook}")
    for source in EXAMPLES:
        for hook in sorted(hooks_of(source)):
            yield pytest.param(
                source.parents[1] / "tests", "test_*.py", hook, id=f"{source.parents[1].name}-{hook}"
            )


def test_every_hook_has_a_kit_and_every_kit_a_hook() -> None:
    assert sorted(KITS) == HOOKS == sorted(["commands", *HOOK_OF_KIND.values()])


@pytest.mark.parametrize("hook", HOOKS)
def test_a_kit_has_tests_and_says_how_it_is_used(hook: str) -> None:
    module = importlib.import_module(f"{contracts.__name__}.{KITS[hook].rpartition('.')[0]}")
    kit = getattr(module, kit_class(hook))
    assert sum(name.startswith("test_") for name, _ in inspect.getmembers(kit)) >= 6
    assert f"({kit_class(hook)}):" in (module.__doc__ or ""), "its docstring shows a subclass"
    assert not kit.__name__.startswith("Test"), (
        "pytest would collect the kit itself wherever it is imported"
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_a_kit_is_documented(hook: str) -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    chapter = re.search(rf"^## {hook}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert chapter is not None
    assert f"`{contracts.__name__}.{KITS[hook]}`" in chapter[1]
    assert f"`{KITS[hook]}`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("tests", "pattern", "hook"), list(provided()))
def test_what_we_provide_runs_its_kit(tests: Path, pattern: str, hook: str) -> None:
    assert kit_class(hook) in kits_run_in(tests, pattern), f"no Test class in {tests} derives from it"


def test_everything_that_we_provide_is_looked_at() -> None:
    sources = [ROOT / f"{module.replace('.', '/')}.py" for module in BUILTINS.values()]
    hooks = [hooks_of(source) for source in (*sources, *PLUGINS, *EXAMPLES)]
    assert all(hooks)
    assert set.union(*hooks) == set(HOOKS)


class TestOurPlugins(PluginContract):
    """The rules for every plugin hold for ours."""

    @pytest.fixture(params=[f"{source.parent.name}.plugin" for source in PLUGINS])
    def plugin_module(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


def test_the_kits_that_the_page_shows_pass(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = [
        code
        for code in re.findall(r"^```python run\n(.*?)^```$", text, re.M | re.S)
        if "class Test" in code
    ]
    assert shown
    for number, code in enumerate(shown):
        (tmp_path / f"test_shown_{number}.py").write_text(code)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", ".")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
