"""The documents say what the code does: derived parts are current, examples run, nothing is left out."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from edgerm_core import errors, hookspecs, interfaces
from edgerm_core.cli.main import COMMANDS, edgerm
from edgerm_core.config import Config, parse_config
from edgerm_core.interfaces import Provider
from edgerm_core.plugins import HOOK_OF_KIND, Plugins, load_plugins

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("plugins/*/README.md")])
HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "edgerm_spec")]
FENCE = re.compile(r"^( *)```([a-z]*)( run)?\n(.*?)^ *```$", re.M | re.S)


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE_DOCS = load_script("make_docs")


def page(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def snippets(language: str) -> list[Any]:
    """Return (code, whether it is to be run) of every block in that language, as parameters."""
    found = []
    for path in PAGES:
        for match in FENCE.finditer(page(path)):
            if match[2] == language:
                code = re.sub(rf"^{match[1]}", "", match[4], flags=re.M)
                line = page(path)[: match.start()].count("\n") + 1
                found.append(pytest.param(code, bool(match[3]), id=f"{path.relative_to(ROOT)}:{line}"))
    return found


# --- derived parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda p: str(p.relative_to(DOCS)))
def test_derived_parts_are_current(path: Path) -> None:
    assert page(path) == MAKE_DOCS.render(page(path)), "run: python scripts/make_docs.py"


def test_every_derived_part_is_on_some_page() -> None:
    everything = "".join(page(path) for path in DOCS.rglob("*.md"))
    assert [name for name in MAKE_DOCS.PARTS if f"<!-- generated: {name} -->" not in everything] == []


# --- nothing is left out --------------------------------------------------------------------------


def test_there_are_hooks() -> None:
    assert sorted(HOOKS) == sorted(["commands", *HOOK_OF_KIND.values()])


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_chapter_with_an_example_that_implements_it(hook: str) -> None:
    chapter = re.search(rf"^## {hook}\n(.*?)(?=^## |\Z)", page(DOCS / "hooks.md"), re.M | re.S)
    assert chapter is not None
    assert f"@hookimpl\ndef {hook}(" in chapter[1]
    assert "```python run" in chapter[1]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_used_by_a_plugin_of_this_repository(hook: str) -> None:
    sources = [*ROOT.glob("edgerm_core/builtin/*.py"), *ROOT.glob("plugins/*/edgerm_*/plugin.py")]
    assert any(f"\ndef {hook}(" in page(path) for path in sources)


def test_every_method_of_an_interface_is_in_its_chapter() -> None:
    text = page(DOCS / "hooks.md")
    for interface in (
        interfaces.Transport,
        interfaces.Listener,
        interfaces.Connection,
        interfaces.Executor,
        interfaces.Scheduler,
        interfaces.DeviceDriver,
        interfaces.Store,
    ):
        for name, _ in inspect.getmembers(interface, inspect.isfunction):
            if not name.startswith("_"):
                assert re.search(rf"\b{name}\b", text), f"{interface.__name__}.{name}"


def test_every_field_of_a_provider_is_explained() -> None:
    text = page(DOCS / "hooks.md")
    assert [field for field in Provider.__struct_fields__ if f"| `{field}` |" not in text] == []


def test_every_config_key_has_a_meaning() -> None:
    text = page(DOCS / "operating.md")
    for name, struct in MAKE_DOCS.config_sections().items():
        meanings = MAKE_DOCS.attributes_of(struct)
        for key in struct.__struct_fields__:
            assert meanings.get(key), f"[{name}] {key} is not in the docstring of {struct.__name__}"
            assert f"| `{key}` |" in text


def test_every_command_and_option_is_documented() -> None:
    text = page(DOCS / "commands.md")
    context = click.Context(edgerm)
    for name in COMMANDS:
        command = edgerm.get_command(context, name)
        assert command is not None
        assert f"### `edgerm {name}" in text
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.show_default, f"{name} {parameter.opts}"
                assert all(option in text for option in parameter.opts)


def test_every_error_the_docs_name_exists() -> None:
    known = {name for name in vars(errors) if isinstance(getattr(errors, name), type)} | {
        "NotImplementedError",
        "ValueError",
    }
    for path in DOCS.rglob("*.md"):
        for name in re.findall(r"\b[A-Z][A-Za-z]+Error\b", page(path)):
            assert name in known, f"{path.name}: {name}"


def test_every_source_file_a_page_names_exists() -> None:
    """Such as `master/tasks.py` or `plugins/transport_ws`; names with <…> stand for others."""
    bases = [ROOT, ROOT / "edgerm_core", ROOT / "docs", ROOT / "scripts"]
    missing = []
    for path in PAGES:
        near = [path.parent, *bases] if path.parent != ROOT else bases
        near += list(path.parent.glob("edgerm_*"))
        for name in re.findall(r"`([a-z_./]+\.(?:py|cddl|json|md|toml)|plugins/[a-z_]+)`", page(path)):
            if name.startswith((".", "/")) or "/x/" in name or name in GENERIC:
                continue
            if not any((base / name).exists() for base in near):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


GENERIC = {
    "config.py",
    "plugin.py",
    "runner.py",
    "executor.py",
    "transport.py",
    "scheduler.py",
    "driver.py",
    "store.py",
    "observer.py",
    "command.py",
}
"""Roles that many packages have; a page that names one means any of them."""


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page(path)):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


# --- snippets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "run"), snippets("python"))
def test_a_python_snippet_compiles_and_a_runnable_one_runs(code: str, run: bool) -> None:
    compiled = compile(code, "<snippet>", "exec")
    if not run:
        return
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compiled, namespace)
    hooks = {name: value for name, value in namespace.items() if hasattr(value, "edgerm_impl")}
    if not hooks:
        return
    plugin = ModuleType("snippet")
    vars(plugin).update(namespace)
    plugins = Plugins(Config())
    plugins.add(plugin, "snippet", "snippet", "1")
    assert plugins.infos[0].status == "loaded", plugins.infos[0].problem
    for kind in HOOK_OF_KIND:
        for name in plugins.names(kind):
            plugins.create(kind, name)


@pytest.mark.parametrize(("code", "run"), snippets("toml"))
def test_a_toml_snippet_is_a_config_that_every_plugin_accepts(code: str, run: bool) -> None:
    import tomllib

    raw = tomllib.loads(code)
    if not raw.keys() <= set(Config.__struct_fields__):
        return  # A task file or a pyproject: being TOML is all that can be said of it here.
    config = parse_config(code)
    plugins = load_plugins(config)
    for kind in HOOK_OF_KIND:
        for name in getattr(config, kind):
            config_type = plugins.provider(kind, name).config_type
            assert config_type is not None, f"[{kind}.{name}]: takes no config"
            config.section(kind, name, config_type)
