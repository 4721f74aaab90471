from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import pytest
from click.testing import Result

from edgerm_core import __version__
from edgerm_core.cli import main as main_module
from edgerm_core.cli.main import COMMANDS, edgerm, first_leaf, main, report
from edgerm_core.errors import (
    ConfigError,
    EdgermError,
    PluginError,
    RequestFailed,
    SpecError,
    TransitionError,
    TransportError,
)


def run_edgerm(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgerm_core.cli.main", *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, invoke: Callable[..., Result]) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: edgerm {name}")


def test_help_lists_every_command_with_its_own_summary(invoke: Callable[..., Result]) -> None:
    text = " ".join(invoke("--help").output.split())
    context = click.Context(edgerm)
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} {summary}" in text
        command = edgerm.get_command(context, name)
        assert command is not None
        assert command.short_help
        assert command.name == name


def test_help_imports_nothing_heavy() -> None:
    """Start-up time counts on a Raspberry Pi: a listing of commands needs no event loop and no codec."""
    code = (
        "import sys\n"
        "from edgerm_core.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = ('edgerm_core.master.', 'edgerm_core.agent.', 'edgerm_core.client.', 'asyncio', "
        "'anyio._core', 'cbor2', 'websockets', 'wasmtime', 'rich', 'pandas')\n"
        "print([name for name in sys.modules if name.startswith(heavy)], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_version() -> None:
    done = run_edgerm("--version")
    assert (done.returncode, done.stdout) == (0, f"edgerm, version {__version__}\n")


def test_unknown_command_and_option_are_usage_errors() -> None:
    for arguments in (["nosuch"], ["ps", "--nosuch"], ["ps", "--state", "nosuch"], ["kill"]):
        done = run_edgerm(*arguments)
        assert done.returncode == 2, arguments
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr


def test_absent_plugin_command_names_its_distribution(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    monkeypatch.setattr(main_module, "_plugin_commands", lambda ctx, name="": {})
    result = invoke("demo")
    assert isinstance(result.exception, click.UsageError)
    assert "pip install edgerm-demo" in result.exception.message


def test_command_of_a_plugin_runs_and_is_listed(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    @click.command(help="does more")
    def extra() -> None:
        click.echo("extra ran")

    _add_commands(monkeypatch, [extra])
    assert invoke("extra").output == "extra ran\n"
    assert "extra  does more" in invoke("--help").output


def test_command_of_a_plugin_cannot_take_a_name_of_core(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    @click.command(name="ps")
    def usurper() -> None:
        click.echo("usurped")

    _add_commands(monkeypatch, [usurper])
    result = invoke("--help")
    assert "'ps' is refused" in result.stderr
    assert "usurped" not in invoke("ps", "--help").output


def _add_commands(monkeypatch: pytest.MonkeyPatch, commands: Iterable[click.Command]) -> None:
    monkeypatch.setattr("edgerm_core.plugins.Plugins.commands", lambda self, timeout_s=None: iter(commands))


def test_wrong_config_is_one_sentence_and_help_still_helps(tmp_path: Path) -> None:
    config = tmp_path / "edgerm.toml"
    config.write_text("[master]\nlistn = 1\n")
    done = run_edgerm("--config", str(config), "plugins")
    assert done.returncode == 2
    assert done.stderr == f"edgerm: {config}: master: unknown key `listn`\n"
    assert run_edgerm("--config", str(config), "--help").returncode == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("edgerm.toml: x", "unknown key"), 2),
        (SpecError("no"), 2),
        (TransportError("nobody answers"), 3),
        (RequestFailed("limit", "too many"), 1),
        (PluginError("ws", "not installed"), 1),
        (EdgermError("other"), 1),
        (TransitionError("task t1", "PENDING", "GONE", []), 70),
        (ZeroDivisionError("x"), 70),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), 1),
        (KeyboardInterrupt(), 130),
        (click.UsageError("wrong"), 2),
    ],
)
def test_exit_code_of_an_error(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(BaseExceptionGroup("unhandled", [BaseExceptionGroup("inner", [error])])) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    if not isinstance(error, KeyboardInterrupt | click.ClickException):
        assert captured.err.startswith("edgerm: ")


def test_first_leaf_of_a_plain_error_is_itself() -> None:
    error = ValueError()
    assert first_leaf(error) is error


def test_bug_is_one_sentence_and_with_debug_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**options: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(edgerm, "main", fail)
    assert main([]) == 70
    assert "bug in edgerm: ZeroDivisionError: by zero" in capsys.readouterr().err
    monkeypatch.setenv("EDGERM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main([])


def test_reader_that_has_enough_ends_it_quietly() -> None:
    """`edgerm plugins | head`: no traceback and no word about it."""
    reader, writer = os.pipe()
    os.close(reader)  # Before it begins: it must not be through by then.
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgerm_core.cli.main", "plugins", "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
