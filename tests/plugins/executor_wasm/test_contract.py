"""The contract of executors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from edgerm_executor_wasm.config import WasmConfig
from edgerm_executor_wasm.executor import WasmExecutor

from edgerm_core.interfaces import TaskLaunch
from edgerm_core.testing.contracts.executor import ExecutorContract, MakeExecutor, Workloads

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig


class WasmWorkloads(Workloads):
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def prints(self, text: str) -> TaskLaunch:
        return self._rig.launch("echo", input=text)

    def exits(self, code: int) -> TaskLaunch:
        return self._rig.launch("exits", "exits", code)

    def runs(self) -> TaskLaunch:
        return self._rig.launch("sleeps")

    def ignores_stop(self) -> TaskLaunch:
        return self._rig.launch("spins")

    def cannot_start(self) -> TaskLaunch:
        return self._rig.launch(b"\0asm\1\0\0\0 damaged")

    def bad_options(self) -> TaskLaunch:
        return self._rig.launch("spins", wings=2)

    def prints_much(self, total_bytes: int) -> TaskLaunch:
        return self._rig.launch("flood", "flood", total_bytes)

    def prints_env(self, name: str, value: str) -> TaskLaunch:
        return self._rig.launch("arguments", env={name: value})

    def returns(self, result: bytes) -> TaskLaunch:
        return self._rig.launch("numbers", "same64", int(result))

    def exceeds_memory(self, limit_mib: int) -> TaskLaunch:
        pages = 16 * limit_mib * 4
        return self._rig.launch(
            f'(module (memory {pages}) (func (export "_start")))', resources=f"mem:{limit_mib}"
        )


class TestWasmExecutor(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path) -> MakeExecutor:
        return lambda: WasmExecutor(WasmConfig(cache_dir=str(tmp_path / "cache")))

    @pytest.fixture
    def workloads(self, make_rig: Callable[[], Rig]) -> Workloads:
        return WasmWorkloads(make_rig())
