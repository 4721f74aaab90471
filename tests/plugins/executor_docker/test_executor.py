"""How runs end, and what they use: over real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import PATIENCE_S, until

from .engine import Engine
from .runner import Runner
from .workloads import launch, shell

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["engine", "podman"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def runner(any_engine: Engine, tmp_path: Path) -> AsyncIterator[Runner]:
    made = Runner(any_engine.url, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def docker(engine: Engine, tmp_path: Path) -> AsyncIterator[Runner]:
    """For what has nothing to do with which engine it is."""
    made = Runner(engine.url, tmp_path)
    yield made
    await made.close()


# --- ends -----------------------------------------------------------------------------------------


async def test_death_by_a_signal_is_no_exit_code(runner: Runner) -> None:
    result = await runner.to_end(shell("sh -c 'kill -TERM $$'; exit $?"))
    assert result.reason == Reason.SIGNALED
    assert result.signal == 15
    assert "SIGTERM" in result.message


async def test_stop_signal_is_the_tasks_own(runner: Runner) -> None:
    run = shell("trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done", stop_signal="SIGINT")
    handle = await runner.start(run)
    await until(lambda: runner.printed(run) == "ready", "it is not ready")
    with anyio.fail_after(PATIENCE_S):
        await runner.executor.stop(handle, 60.0)
        assert (await runner.executor.wait(handle)).exit_code == 9


async def test_container_that_somebody_removes_ends_its_run(any_engine: Engine, runner: Runner) -> None:
    handle = await runner.start(launch("sleep", 600))
    any_engine.call("DELETE", f"/containers/{handle.data['container']}", force="true")
    with anyio.fail_after(PATIENCE_S):
        result = await runner.executor.wait(handle)
    assert not result.ok


# --- stats ----------------------------------------------------------------------------------------


async def test_stats_count_processor_memory_and_network(runner: Runner) -> None:
    run = shell(
        "x=a; while [ ${#x} -lt 8000000 ]; do x=$x$x; done; echo ready; sleep 600; :", network="bridge"
    )
    handle = await runner.start(run)
    await until(lambda: runner.printed(run) == "ready", "it is not ready")
    stats = await runner.executor.stats(handle)
    assert stats.cpu_s is not None
    assert 0 < stats.cpu_s < 30
    assert stats.mem_bytes is not None
    assert 4 << 20 < stats.mem_bytes < 256 << 20
    assert stats.mem_peak_bytes is not None
    assert stats.mem_peak_bytes >= stats.mem_bytes // 2
    assert stats.net_rx_bytes is not None
    assert stats.net_tx_bytes is not None
    await runner.executor.stop(handle, 0.0)
    assert (await runner.executor.stats(handle)).cpu_s is None


async def test_stats_without_a_view_of_control_groups_come_from_the_engine(
    docker: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgerm_executor_docker.executor as module

    monkeypatch.setattr(module, "read_stats", lambda *_: None)
    handle = await docker.start(shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 600"))
    stats = await docker.executor.stats(handle)
    assert stats.cpu_s is not None
    assert stats.mem_bytes is not None


async def test_image_name_is_checked_before_anything_else(docker: Runner) -> None:
    assert "image name" in await docker.refused(launch("true", image="NotLower/Case"))
