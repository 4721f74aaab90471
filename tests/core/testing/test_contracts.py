"""The kits find bugs: broken implementations in `planted/`, and what each must be told.

A planted bug is a test class that derives from a kit, with a broken implementation in its fixtures.
`caught_by` is the test that must fail, and `says` what must be in the text of the failure. Each module
has a class `TestSound` too, with the same implementation unbroken: it must pass what catches the others.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from edgerm_core.testing.contracts import KITS

ROOT = Path(__file__).resolve().parents[3]
PLANTED = sorted(path.stem for path in Path(__file__).with_name("planted").glob("*.py"))
RUN_S = 300
"""Some kits wait for what a broken implementation never does."""

Verdicts = dict[tuple[str, str], list[str]]


@cache
def module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.core.testing.planted.{name}")


def bugs(name: str) -> list[type]:
    return [
        value
        for value in vars(module(name)).values()
        if inspect.isclass(value) and value.__name__.startswith("Test") and hasattr(value, "caught_by")
    ]


def run(name: str, directory: Path) -> Verdicts:
    """Run what shall catch the bugs of a module, on the bugs and on the sound implementation."""
    file = Path(str(module(name).__file__))
    chosen = [f"{file}::{bug.__name__}::{bug.caught_by}" for bug in bugs(name)]  # type: ignore[attr-defined]
    chosen += [f"{file}::TestSound::{test}" for test in {bug.caught_by for bug in bugs(name)}]  # type: ignore[attr-defined]
    settings, report = directory / "pytest.ini", directory / "report.xml"
    settings.write_text("[pytest]\n")
    options = (
        "-q",
        "--import-mode=importlib",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:timeout",
    )
    command = (sys.executable, "-m", "pytest", *options, "-c", str(settings), "--rootdir", str(ROOT))
    done = subprocess.run(
        # Other styles parse sources for every failure, which CPython 3.11 does not always survive.
        [*command, "--tb=native", f"--junit-xml={report}", *chosen],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: Verdicts = {}
    for case in ElementTree.parse(report).iter("testcase"):
        key = (str(case.get("classname")).rpartition(".")[2], str(case.get("name")))
        assert case.find("skipped") is None, f"{key} was skipped"
        texts = found.setdefault(key, [])
        texts += [f"{e.get('message')}\n{e.text}" for e in (*case.iter("failure"), *case.iter("error"))]
    return found


def failures_of(found: Verdicts, name: str, test: str) -> list[str]:
    """Return what the failures of a test say, all its parameters together unless it names them.

    Raises:
        AssertionError: if it was not run.
    """
    keys = [key for key in found if key[0] == name and test in (key[1], key[1].partition("[")[0])]
    assert keys, f"{name} has no {test}"
    return [text for key in keys for text in found[key]]


def test_every_kit_is_tried() -> None:
    kits = {kit.partition(".")[0] for kit in KITS.values()} | {"plugin"}
    assert set(PLANTED) == kits
    for name in PLANTED:
        assert len(bugs(name)) >= 6


@pytest.mark.timeout(RUN_S + 20)
@pytest.mark.parametrize("name", PLANTED)
def test_the_kit_catches_every_planted_bug_and_nothing_else(name: str, tmp_path: Path) -> None:
    found = run(name, tmp_path)
    wrong: list[str] = []
    for bug in bugs(name):
        caught_by, says = bug.caught_by, bug.says  # type: ignore[attr-defined]
        failures = failures_of(found, bug.__name__, caught_by)
        if not failures:
            wrong.append(f"{bug.__name__} was not caught by {caught_by}")
        elif not any(says in text for text in failures):
            wrong.append(f"{bug.__name__}: nothing says {says!r} but\n{failures[0][-1500:]}")
        for text in failures_of(found, "TestSound", caught_by):
            wrong.append(f"the sound one fails {caught_by}:\n{text[-1500:]}")
    assert not wrong, "\n\n".join(wrong)
