from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.agent.identity import agent_id, boot_id, incarnation
from edgerm_core.errors import ConfigError, StoreError


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    assert agent_id("", tmp_path) == agent_id("", tmp_path)


def test_the_config_names_the_id(tmp_path: Path) -> None:
    assert agent_id("gw-1", tmp_path) == "gw-1"
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.id"):
        agent_id("not a name", tmp_path)


def test_a_damaged_id_is_named_and_not_replaced(tmp_path: Path) -> None:
    """A new id would be a new agent, and the old one's tasks would wait for it for ever."""
    (tmp_path / "agent-id").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="agent-id"):
        agent_id("", tmp_path)


def test_the_boot_id_is_empty_where_the_kernel_does_not_say(tmp_path: Path) -> None:
    assert boot_id(tmp_path / "missing") == ""


def test_every_process_has_another_incarnation() -> None:
    assert incarnation() != incarnation()
