from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import click
import pytest
from click.testing import Result

from edgerm_core.cli import daemons
from edgerm_core.cli.daemons import LineFormatter, override, parse_attribute, until_signal
from edgerm_core.config import AgentConfig, Config, load_config
from edgerm_core.errors import ConfigError, PluginError, ResourceError
from edgerm_core.plugins import Plugins, load_plugins

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemons set up logging for their process; here that would be pytest's."""
    monkeypatch.setattr(daemons, "start_logging", lambda verbosity: None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("floor=3", 3),
        ("lat=52.5", 52.5),
        ("indoor=true", True),
        ("zone=a=b", "a=b"),
        ("note=", ""),
        ("x=nan", "nan"),
        ("x=infinity", "infinity"),
    ],
)
def test_attribute_text_becomes_a_typed_fact(text: str, value: object) -> None:
    found = parse_attribute(text)[1]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["floor", "=3", ""])
def test_attribute_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_attribute(text)


def test_only_flags_that_were_given_override() -> None:
    section = AgentConfig(name="pi4", masters=("ws://a:1",))
    assert override(section, name=None, masters=(), resources="cpus:1") == AgentConfig(
        name="pi4", masters=("ws://a:1",), resources="cpus:1"
    )


def test_missing_transport_is_named_with_the_way_to_get_it(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    config = tmp_path / "edgerm.toml"
    config.write_text("[plugins]\nenable = []\n")
    error = invoke("--config", str(config), "master", "--listen", "nosuch://127.0.0.1:1").exception
    assert isinstance(error, PluginError)
    assert "no transport 'nosuch' is installed (installed: memory)" in str(error)
    error = invoke("--config", str(config), "agent", "--master", "ws://127.0.0.1:1").exception
    assert isinstance(error, PluginError)
    assert "disabled by the config" in str(error) or "pip install edgerm-transport-ws" in str(error)


def test_a_section_that_nothing_reads_is_named(
    invoke: Callable[..., Result], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "edgerm.toml"
    config.write_text("[scheduler.dfr]\nx = 1\n[executor.wsm]\nx = 1\n[store.sqlite]\n")
    plugins = load_plugins(load_config(config))
    (sentence,) = plugins.unused_sections(daemons.MASTER_SECTIONS)
    assert sentence.startswith(
        "nothing reads [scheduler.dfr] of the config: no scheduler 'dfr' is installed"
    )
    (sentence,) = plugins.unused_sections(daemons.AGENT_SECTIONS)
    assert sentence.startswith("nothing reads [executor.wsm] of the config: ")
    # Something else is wrong, so that it ends.
    invoke("--config", str(config), "agent", "--executor", "none")
    assert [record.message for record in caplog.records if "wsm" in record.message] == [sentence]


def test_wrong_flags_are_refused_before_anything_starts(invoke: Callable[..., Result]) -> None:
    agent = ("agent", "--master", "memory://x")
    assert isinstance(invoke(*agent, "--resources", "cpus").exception, ResourceError)
    assert isinstance(invoke(*agent, "--executor", "nosuch").exception, PluginError)
    assert isinstance(invoke(*agent, "--attribute", "x").exception, click.BadParameter)
    assert isinstance(invoke("master", "--listen", "nonsense").exception, ConfigError)
    assert isinstance(invoke(*agent, "--gateway", "nosuch://127.0.0.1:1").exception, PluginError)


async def test_signal_ends_a_daemon_that_cleans_up() -> None:
    steps: list[str] = []

    async def daemon() -> None:
        try:
            steps.append("runs")
            await anyio.wait_all_tasks_blocked()  # The receiver is installed then.
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                steps.append("cleaned up")

    with anyio.fail_after(10):
        await until_signal(daemon, Plugins(Config()))
    assert steps == ["runs", "cleaned up"]


async def test_daemon_that_ends_by_itself_ends_it_all() -> None:
    async def daemon() -> None:
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10):
        await until_signal(daemon, Plugins(Config()))


async def test_error_of_a_daemon_comes_out() -> None:
    async def daemon() -> None:
        raise ConfigError("x", "wrong")

    with anyio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
        await until_signal(daemon, Plugins(Config()))
    assert caught.group_contains(ConfigError)


def test_log_line_has_time_level_and_message() -> None:
    record = logging.LogRecord("edgerm", logging.WARNING, "x.py", 1, "disk %s", ("full",), None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    assert LineFormatter().format(record) == "2023-11-14T22:13:20.250Z WARNING edgerm: disk full"
