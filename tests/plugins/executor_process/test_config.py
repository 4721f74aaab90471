"""`[executor.process]`."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_executor_process.config import AGENT_DATA_VARIABLE, ProcessConfig, find_state_dir

from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError


def test_state_dir_of_the_config_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGENT_DATA_VARIABLE, "/agent/data")
    assert find_state_dir(ProcessConfig(state_dir="/else/where")) == Path("/else/where")


def test_state_dir_is_in_the_agents_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGENT_DATA_VARIABLE, "/agent/data")
    assert find_state_dir(ProcessConfig()) == Path("/agent/data/executor-process")


def test_state_dir_without_an_agent_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AGENT_DATA_VARIABLE, raising=False)
    monkeypatch.setenv("EDGERM_DATA", "/data")
    assert find_state_dir(ProcessConfig()) == Path("/data/agent/executor-process")


def test_wrong_section_names_the_key() -> None:
    for text in ("pids_limit_default = 0", "colour = 'blue'", "path = 3"):
        config = parse_config(f"[executor.process]\n{text}\n")
        with pytest.raises(ConfigError, match=r"executor\.process"):
            config.section("executor", "process", ProcessConfig)
