"""The executor contract, over real processes with and without control groups."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from edgerm_executor_process import executor as executor_module
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.cgroups import detect_cgroups
from edgerm_core.interfaces import Executor
from edgerm_core.testing.contracts.executor import (
    PATIENCE_S,
    ExecutorContract,
    MakeExecutor,
    RunStarter,
    until,
)

from .workloads import FAMILY, ProcessWorkloads, living, shell


class TestProcessExecutor(ExecutorContract):
    @pytest.fixture
    def make_executor(self, tmp_path: Path) -> MakeExecutor:
        def make() -> Executor:
            return ProcessExecutor(ProcessConfig(state_dir=str(tmp_path / "executor")))

        return make

    @pytest.fixture
    def workloads(self) -> ProcessWorkloads:
        return ProcessWorkloads()


class TestProcessExecutorWithoutControlGroups(ExecutorContract):
    """A machine where nothing can be limited: everything else holds all the same."""

    @pytest.fixture
    def make_executor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeExecutor:
        nowhere = tmp_path / "no-cgroups"
        nowhere.mkdir()
        monkeypatch.setattr(executor_module, "detect_cgroups", lambda: detect_cgroups(nowhere))

        def make() -> Executor:
            return ProcessExecutor(ProcessConfig(state_dir=str(tmp_path / "executor")))

        return make

    @pytest.fixture
    def workloads(self) -> ProcessWorkloads:
        return ProcessWorkloads()

    async def test_capabilities_claim_no_limit(self, run: RunStarter) -> None:
        for limit in ("cpu_limit", "mem_limit", "pids_limit"):
            assert not await run.can(limit)

    async def test_daemon_in_a_session_of_its_own_dies_too(self, run: RunStarter) -> None:
        spec = shell(FAMILY + "exec sleep 600")
        handle = await run(spec)
        await until(lambda: len(living(spec)) >= 6, "the family never lived")
        with anyio.fail_after(PATIENCE_S):
            await run.executor.stop(handle, 5.0)
        assert living(spec) == []

    async def test_stats_come_from_the_processes(self, run: RunStarter) -> None:
        handle = await run(shell("sleep 600; true"))
        with anyio.fail_after(PATIENCE_S):
            # Between fork and exec a process may have no pages to count.
            while not (stats := await run.executor.stats(handle)).mem_bytes:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert stats.cpu_s is not None
