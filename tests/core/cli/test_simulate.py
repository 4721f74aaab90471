"""The command on the files of examples/, which must be quick and always say the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgerm_core.errors import ConfigError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "simulate"
Invoke = Callable[..., Result]


def files(example: str) -> list[str]:
    return [str(EXAMPLES / example / name) for name in ("cluster.toml", "workload.toml")]


@pytest.mark.parametrize("example", [path.name for path in sorted(EXAMPLES.iterdir())])
def test_examples_take_seconds_and_say_the_same_twice(example: str, invoke: Invoke) -> None:
    before = time.process_time()
    first = invoke("simulate", *files(example), "--json")
    # Several times what it takes alone: a second on a shared core does less.
    assert time.process_time() - before < 40
    # Another process, with other hashes: nothing may depend on the order of a set.
    again = subprocess.run(
        [sys.executable, "-m", "edgerm_core.cli.main", "simulate", *files(example), "--json"],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert first.exception is None
    assert first.stdout == again.stdout
    figures = json.loads(first.stdout)
    assert figures["complete"]
    assert figures["tasks"]["finished"] == figures["tasks"]["submitted"]


def test_people_get_tables_and_a_drawing(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("drawing.html", "drawing.svg"):
        result = invoke("-v", "simulate", *files("fair-shares"), "--plot", str(tmp_path / name))
        assert result.exception is None
        assert "All 900 tasks ended" in result.stdout
        assert "rack-3" in result.stdout
        assert f"drawn into {tmp_path / name}" in result.stderr
        assert "<svg" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_drawing_of_another_kind_is_refused_before_anything_is_done(invoke: Invoke) -> None:
    result = invoke("simulate", "nothing.toml", "nothing.toml", "--plot", "drawing.png")
    assert isinstance(result.exception, click.UsageError)
    assert "ends in .html or .svg" in result.exception.message


def test_a_file_that_is_not_there_is_named(invoke: Invoke) -> None:
    result = invoke("simulate", "nothing.toml", "nothing.toml")
    assert isinstance(result.exception, ConfigError)


def test_the_command_imports_nothing_heavy_until_it_runs() -> None:
    code = (
        "import sys, edgerm_core.cli.simulate\n"
        "print([name for name in sys.modules if name.startswith('edgerm_core.simulate')\n"
        " or name.startswith('edgerm_core.testing') or name in ('anyio', 'cbor2', 'pluggy')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
