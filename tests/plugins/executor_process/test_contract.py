"""The executor contract, over real processes with and without control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.interfaces import Executor
from edgerm_core.testing.contracts.executor import ExecutorContract, MakeExecutor, RunStarter
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from .workloads import ProcessWorkloads


class TestProcessExecutor(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path) -> MakeExecutor:
        def make() -> Executor:
            return ProcessExecutor(ProcessConfig(state_dir=str(tmp_path / "executor")))

        return make

    @pytest.fixture
    def workloads(self) -> ProcessWorkloads:
        return ProcessWorkloads()
