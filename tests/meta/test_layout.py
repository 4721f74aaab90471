"""Where things are: each source file has its test file, each package its marker, each `__all__` is true."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [
    ROOT / "edgerm_core",
    *sorted(path.parent for path in ROOT.glob("plugins/*/edgerm_*/__init__.py")),
]

WITHOUT_TESTS_OF_THEIR_OWN: Final[dict[str, str]] = {
    "edgerm_core/hookspecs.py": "specifications only; test_plugins.py and meta/test_docs.py hold them",
    "edgerm_core/interfaces.py": "abstract; the contract suites run over every implementation",
    "edgerm_core/observers.py": "a base class whose methods do nothing; builtin/event_log.py uses it",
    "edgerm_core/master/effects.py": "plain records without behaviour",
    "edgerm_core/master/events.py": "plain records without behaviour",
    "edgerm_core/agent/effects.py": "plain records without behaviour",
    "edgerm_core/agent/events.py": "plain records without behaviour",
    "edgerm_core/gateway/effects.py": "plain records without behaviour",
    "edgerm_core/gateway/events.py": "plain records without behaviour",
    "edgerm_core/testing/contracts/asynchronous.py": "a base of suites; each of them needs what it brings",
    "edgerm_core/testing/contracts/command.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/device_driver.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/executor.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/observer.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/plugin.py": "a suite itself, run over every plugin",
    "edgerm_core/testing/contracts/scheduler.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/store.py": "a suite itself, run over every implementation",
    "edgerm_core/testing/contracts/transport.py": "a suite itself, run over every implementation",
}
"""Source file to the reason why no test file has its name. Keep it short."""

AWAITED: Final = frozenset(
    [
        "edgerm_core/agent/blobs.py",
        "edgerm_core/agent/environment.py",
        "edgerm_core/agent/execution.py",
        "edgerm_core/agent/invariants.py",
        "edgerm_core/agent/launches.py",
        "edgerm_core/agent/logs_service.py",
        "edgerm_core/agent/records.py",
        "edgerm_core/agent/run.py",
        "edgerm_core/agent/state.py",
        "edgerm_core/agent/turn.py",
        "edgerm_core/master/invariants.py",
        "edgerm_core/master/machine.py",
    ]
)
"""Source files tested only through others so far; no new one may join them."""


def sources() -> list[Path]:
    return [
        path
        for package in PACKAGES
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]


def test_file_of(source: Path) -> Path:
    """Return where the tests of a source file are."""
    relative = source.relative_to(ROOT)
    if relative.parts[0] == "edgerm_core":
        return ROOT / "tests" / "core" / Path(*relative.parts[1:-1]) / f"test_{source.name}"
    return (
        ROOT / "tests" / "plugins" / relative.parts[1] / Path(*relative.parts[3:-1]) / f"test_{source.name}"
    )


test_file_of.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_is_typed_for_others(package: Path) -> None:
    assert (package / "py.typed").is_file()


def exporting() -> list[Path]:
    every = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
    return [path for path in every if "\n__all__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("source", exporting(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_exports_is_there(source: Path) -> None:
    package = next(package for package in PACKAGES if source.is_relative_to(package))
    dotted = source.relative_to(package.parent).with_suffix("").parts
    module = importlib.import_module(".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted))
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_every_source_file_has_its_test_file() -> None:
    missing = {str(path.relative_to(ROOT)) for path in sources() if not test_file_of(path).exists()}
    assert sorted(missing - AWAITED - WITHOUT_TESTS_OF_THEIR_OWN.keys()) == []


def test_exceptions_name_files_that_are_there_and_lack_tests() -> None:
    for name, reason in WITHOUT_TESTS_OF_THEIR_OWN.items():
        assert reason
        assert (ROOT / name).is_file(), name
        assert not test_file_of(ROOT / name).exists(), name
