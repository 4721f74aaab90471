"""`edgerm plugin new`: what it writes where, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgerm_core.cli.main import COMMANDS
from edgerm_core.cli.new_plugin import KINDS, render


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_the_distribution_and_lists_its_files(
    kind: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("plugin", "new", kind, "my-lab", "--directory", str(tmp_path))
    assert result.exception is None
    (directory,) = tmp_path.iterdir()
    assert directory.name == f"edgerm-{kind}-my-lab".replace("_", "-")
    written = {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }
    assert written == render(kind, "my-lab")
    assert all(str(directory / name) in result.output for name in written)
    assert f"cd {directory}" in result.output


def test_without_a_directory_it_writes_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("plugin", "new", "device-driver", "lamp").exception is None
    assert [path.name for path in tmp_path.iterdir()] == ["edgerm-device-driver-lamp"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["exekutor", "x"], "there is no kind of plugin 'exekutor': did you mean 'executor'?"),
        (["driver", "x"], "did you mean 'device_driver'?"),
        (["qqq", "x"], "choose one of transport, executor, scheduler"),
        (["executor", "My Lab"], "'My Lab' is not a plugin name"),
        (["executor", "wasm"], "the executor 'wasm' is taken by edgerm-executor-wasm"),
        (["store", "sqlite"], "the store 'sqlite' is taken by edgerm-core or an installed plugin"),
        (["command", "ps"], "the command 'ps' is taken by edgerm itself"),
        (["command", "demo"], "the command 'demo' is taken by edgerm-demo"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(
    arguments: list[str], sentence: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("plugin", "new", *arguments, "--directory", str(tmp_path))
    assert isinstance(result.exception, click.UsageError)
    assert sentence in result.exception.format_message()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    there = tmp_path / "edgerm-store-mine"
    there.mkdir()
    result = invoke("plugin", "new", "store", "mine", "--directory", str(tmp_path))
    assert isinstance(result.exception, click.UsageError)
    assert "is there already" in result.exception.format_message()
    assert list(there.iterdir()) == []


def test_help_explains_every_kind(invoke: Callable[..., Result]) -> None:
    text = invoke("plugin", "new", "--help").output
    for kind, meaning in KINDS.items():
        assert f"{kind:15}{meaning}" in text
    assert "plugin" in COMMANDS
