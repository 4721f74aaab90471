"""What the executor says about itself, and what that costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from edgerm_executor_wasm import fingerprint as fingerprint_file
from edgerm_executor_wasm.fingerprint import take_fingerprint


def test_version_and_capabilities() -> None:
    fingerprint = take_fingerprint()
    assert fingerprint.healthy
    assert fingerprint.version.startswith("wasmtime ")
    assert fingerprint.capabilities["mem_limit"]
    assert fingerprint.capabilities["cpu_limit"]
    assert not fingerprint.capabilities["survives_agent_restart"]
    assert not fingerprint.capabilities["signals"]


def test_missing_wasmtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint_file, "wasmtime_version", lambda: "")
    fingerprint = take_fingerprint()
    assert not fingerprint.healthy
    assert "pip install" in fingerprint.problem


def test_processor_without_a_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "armv7l")
    fingerprint = take_fingerprint()
    assert not fingerprint.healthy
    assert "armv7l" in fingerprint.problem


def test_failed_load_is_remembered() -> None:
    assert take_fingerprint("no such symbol").problem == "no such symbol"


def test_wasmtime_is_loaded_by_the_first_task_only() -> None:
    program = """
import sys, anyio
from edgerm_executor_wasm import plugin
from edgerm_executor_wasm.config import WasmConfig
[provider] = plugin.executors()
assert "edgerm_executor_wasm.executor" not in sys.modules
executor = provider.create(WasmConfig())
assert anyio.run(executor.fingerprint).healthy
assert "wasmtime" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
