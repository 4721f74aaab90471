from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.cli import settings
from edgerm_core.cli.settings import Settings
from edgerm_core.config import DEFAULT_URL
from edgerm_core.errors import ConfigError


def test_without_anything_all_defaults_hold() -> None:
    found = Settings()
    assert found.config_path is None
    assert found.master_url == DEFAULT_URL
    assert found.config.master.listen == (DEFAULT_URL,)


def test_environment_names_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[master]\ninsecure = true\n")
    monkeypatch.setenv("EDGERM_CONFIG", str(file))
    assert Settings().config.master.insecure


def test_option_wins_over_environment_and_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGERM_CONFIG", "elsewhere.toml")
    assert Settings(tmp_path / "a.toml").config_path == tmp_path / "a.toml"


def test_first_place_that_is_a_file_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    second.write_text("")
    monkeypatch.setattr(settings, "CONFIG_PLACES", (str(first), str(second)))
    assert Settings().config_path == second
    first.write_text("")
    assert Settings().config_path == first


def test_named_config_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        _ = Settings(tmp_path / "none.toml").config


def test_who_only_talks_to_the_master_loads_what_speaks_its_url() -> None:
    found = Settings(master_url="ws://127.0.0.1:1")
    assert found.transports.names("transport") == ["memory", "ws"]
    assert not found.transports.names("executor")
    assert "process" in found.plugins.names("executor")
