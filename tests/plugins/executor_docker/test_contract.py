"""The executor contract, over both engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.executor import DockerExecutor

from edgerm_core.interfaces import Executor
from edgerm_core.testing.contracts.executor import ExecutorContract, MakeExecutor, RunStarter

from .engine import DockerEngine, PodmanEngine
from .workloads import DockerWorkloads


def maker(url: str, state_dir: Path) -> MakeExecutor:
    def make() -> Executor:
        return DockerExecutor(DockerConfig(socket=url, state_dir=str(state_dir)))

    return make


class TestWithDocker(ExecutorContract):
    @pytest.fixture
    def make_executor(self, engine: DockerEngine, tmp_path: Path) -> MakeExecutor:
        return maker(engine.url, tmp_path / "executor")

    @pytest.fixture
    def workloads(self) -> DockerWorkloads:
        return DockerWorkloads()

    async def test_nothing_that_the_suite_asks_for_is_missing(self, run: RunStarter) -> None:
        for capability in ("logs", "results", "signals", "mem_limit", "survives_agent_restart"):
            assert await run.can(capability), capability


class TestWithPodman(ExecutorContract):
    @pytest.fixture
    def make_executor(self, podman: PodmanEngine, tmp_path: Path) -> MakeExecutor:
        return maker(podman.url, tmp_path / "executor")

    @pytest.fixture
    def workloads(self) -> DockerWorkloads:
        return DockerWorkloads()

    async def test_nothing_that_the_suite_asks_for_is_missing(self, run: RunStarter) -> None:
        for capability in ("logs", "results", "signals", "mem_limit", "survives_agent_restart"):
            assert await run.can(capability), capability
