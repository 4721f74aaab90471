"""The plugin, as core finds it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from edgerm_executor_wasm.executor import WasmExecutor

from edgerm_core.config import parse_config
from edgerm_core.plugins import load_plugins


def test_core_creates_the_executor_from_its_section(tmp_path: Path) -> None:
    text = f"[plugins]\nenable = ['executor-wasm']\n[executor.wasm]\ncache_dir = '{tmp_path}'\n"
    executor = load_plugins(parse_config(text)).create("executor", "wasm")
    assert isinstance(executor, WasmExecutor)
    assert executor.name == "wasm"
    assert executor._cache_dir() == tmp_path


def test_cache_is_in_the_agents_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executor = load_plugins(parse_config("[plugins]\nenable = ['executor-wasm']\n")).create(
        "executor", "wasm"
    )
    monkeypatch.setenv("EDGERM_AGENT_DATA", str(tmp_path))
    assert executor._cache_dir() == tmp_path / "executor-wasm" / "cache"
    monkeypatch.delenv("EDGERM_AGENT_DATA")
    monkeypatch.setenv("EDGERM_DATA", str(tmp_path))
    assert executor._cache_dir() == tmp_path / "agent" / "executor-wasm" / "cache"
    anyio.run(executor.close)
