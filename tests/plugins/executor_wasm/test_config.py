"""`[executor.wasm]`."""

from __future__ import annotations

import pytest
from edgerm_executor_wasm.config import WasmConfig

from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError


def test_section_is_read() -> None:
    config = parse_config("[executor.wasm]\ncache_dir = '/x'\ncache_mib = 10\ndefault_mem_mib = 8\n")
    assert config.section("executor", "wasm", WasmConfig) == WasmConfig("/x", 10, 8)


@pytest.mark.parametrize(
    "text", ["cache_mib = 0", "default_mem_mib = 0", "default_mem_mib = 5000", "cash = 1"]
)
def test_wrong_key_is_refused(text: str) -> None:
    config = parse_config(f"[executor.wasm]\n{text}\n")
    with pytest.raises(ConfigError, match=text.split()[0]):
        config.section("executor", "wasm", WasmConfig)
