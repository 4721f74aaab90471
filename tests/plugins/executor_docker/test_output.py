"""No output is lost or doubled over restarts of the agent, however many, on both engines."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from edgerm_core.logs import LogWriter
from edgerm_core.testing.contracts.executor import PATIENCE_S, until

from .agents import TICKS, Agents
from .engine import DockerEngine, Engine
from .workloads import shell

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["engine", "podman"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[Agents]:
    made = Agents(tmp_path)
    yield made
    await made.close()


async def test_output_goes_on_without_a_gap_over_agent_restarts(any_engine: Engine, agents: Agents) -> None:
    executor = agents.agent(any_engine.url)
    run = shell(TICKS)
    handle = await agents.start(executor, run)
    for _ in range(3):
        seen = len(agents.ticks(run))
        await until(lambda seen=seen: len(agents.ticks(run)) > seen + 5, "nothing more is copied")  # type: ignore[misc]
        await executor.close()
        await anyio.sleep(0.3)  # Some is printed while nobody listens.
        executor = agents.agent(any_engine.url)
        await executor.recover(handle)
    seen = len(agents.ticks(run))
    await until(lambda: len(agents.ticks(run)) > seen + 5, "nothing more is copied")
    assert agents.ticks(run) == list(range(1, len(agents.ticks(run)) + 1))


async def test_output_of_a_run_that_ended_without_the_agent_is_complete(
    any_engine: Engine, agents: Agents
) -> None:
    executor = agents.agent(any_engine.url)
    run = shell("for i in 1 2 3 4 5 6 7 8 9 10; do echo tick $i; sleep 0.05; done; printf last")
    handle = await agents.start(executor, run)
    await until(lambda: len(agents.ticks(run)) > 2, "it printed nothing")
    await executor.close()
    container = str(handle.data["container"])
    await until(lambda: not any_engine.inspect(container)["State"]["Running"], "it does not end")
    executor = agents.agent(any_engine.url)
    await executor.recover(handle)
    with anyio.fail_after(PATIENCE_S):
        assert (await executor.wait(handle)).ok
    assert agents.ticks(run) == list(range(1, 11))
    assert agents.printed(run).count(b"last") == 1


async def test_all_seen_before_the_restart_is_not_written_again(any_engine: Engine, agents: Agents) -> None:
    executor = agents.agent(any_engine.url)
    run = shell("echo tick 1; printf unfinished; sleep 600")
    handle = await agents.start(executor, run)
    await until(lambda: agents.printed(run).endswith(b"unfinished"), "it printed nothing")
    for _ in range(2):
        await executor.close()
        executor = agents.agent(any_engine.url)
        await executor.recover(handle)
        await anyio.sleep(0.2)
    with anyio.fail_after(PATIENCE_S):
        await executor.stop(handle, 0.0)
        await executor.wait(handle)
    assert agents.printed(run).rstrip(b"\n") == b"tick 1\nunfinished"


async def test_flood_while_nobody_listens_loses_the_oldest_and_doubles_nothing(
    engine: DockerEngine, agents: Agents
) -> None:
    agents.limit_bytes = 65_536
    executor = agents.agent(engine.url)
    run = shell(
        "echo tick 0; while [ ! -e /edgerm/work/go ]; do sleep 0.05; done; "
        "seq 1 60000 | sed 's/^/tick /'; echo end; sleep 600"
    )
    handle = await agents.start(executor, run)
    await until(lambda: agents.ticks(run) == [0], "it printed nothing")
    await executor.close()
    (agents.sandbox(run).work_dir / "go").touch()

    def last() -> bytes:
        query = {"stdout": "true", "tail": "1"}
        return engine.request("GET", f"/containers/{handle.data['container']}/logs", query=query)[1]

    await until(lambda: last().endswith(b"end\n"), "the engine never has the flood's end")
    executor = agents.agent(engine.url)
    await executor.recover(handle)
    await until(lambda: agents.printed(run).endswith(b"end\n"), "the flood's end is not there")
    seen = agents.ticks(run)
    kept = seen[1:] if seen[0] == 0 else seen
    assert kept == list(range(kept[0], 60_001))
    rings = sum(path.stat().st_size for path in agents.sandbox(run).log_dir.iterdir())
    assert rings <= 65_536


async def test_full_disk_costs_the_output_and_not_the_task(
    engine: DockerEngine, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgerm_executor_docker import output

    class Full(LogWriter):
        def write(self, data: bytes) -> None:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(output, "LogWriter", Full)
    executor = agents.agent(engine.url)
    handle = await agents.start(executor, shell("echo lost"))
    with anyio.fail_after(PATIENCE_S):
        result = await executor.wait(handle)
    assert result.ok
    assert "5 bytes of its output could not be kept: No space left on device" in result.message
