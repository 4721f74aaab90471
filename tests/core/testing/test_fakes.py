"""The executor that runs nothing does what its script says."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from edgerm_core.errors import ExecutorError, TaskLost
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, Implementation, Reason
from edgerm_core.testing.fakes import WELL, FakeExecutor, Script
from edgerm_core.testing.sandboxes import DirectorySandbox

pytestmark = pytest.mark.anyio
BADLY = ExitResult(False, Reason.EXIT_CODE, exit_code=3)


def launch(task_id: int = 1) -> TaskLaunch:
    return TaskLaunch(TaskId(task_id), 1, 0, "job", Implementation("fake"), None, Resources(), {})


def scripted(script: Script) -> FakeExecutor:
    executor = FakeExecutor()
    executor.script = lambda _: script
    return executor


async def start(executor: FakeExecutor, tmp_path: Path) -> TaskHandle:
    with anyio.fail_after(30):
        return await executor.start(launch(), DirectorySandbox(tmp_path))


async def wait(executor: FakeExecutor, handle: TaskHandle) -> ExitResult:
    with anyio.fail_after(30):
        return await executor.wait(handle)


async def test_run_without_a_script_ends_well_and_is_there_until_destroyed(tmp_path: Path) -> None:
    executor = FakeExecutor("other")
    handle = await start(executor, tmp_path)
    assert handle.executor == "other"
    assert await wait(executor, handle) == WELL
    assert executor.started == [launch()]
    assert executor.running == {(1, 1, 0)}
    await executor.destroy(handle)
    assert executor.running == set()


async def test_run_goes_on_until_the_test_ends_it(tmp_path: Path) -> None:
    executor = scripted(Script())
    handle = await start(executor, tmp_path)
    results: list[ExitResult] = []

    async def follow() -> None:
        results.append(await wait(executor, handle))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert results == []
        executor.exit(1, BADLY)
    assert results == [BADLY]
    assert await wait(executor, handle) == BADLY, "waiting can be repeated"


async def test_start_that_hangs_can_be_let_go_on(tmp_path: Path) -> None:
    executor = scripted(Script(start_hangs=True, exits=WELL))
    async with anyio.create_task_group() as group:
        group.start_soon(start, executor, tmp_path)
        with anyio.fail_after(30):
            await executor.until(lambda: bool(executor.started))
        assert executor.running == set()
        executor.go_on()
        with anyio.fail_after(30):
            await executor.until(lambda: bool(executor.running))


async def test_cancelled_start_leaves_nothing_running(tmp_path: Path) -> None:
    executor = scripted(Script(start_hangs=True))
    with anyio.move_on_after(0.01) as scope:
        await executor.start(launch(), DirectorySandbox(tmp_path))
    assert scope.cancelled_caught
    assert executor.running == set()


@pytest.mark.parametrize("place", ["start", "wait"])
async def test_error_is_raised_where_the_script_says(tmp_path: Path, place: str) -> None:
    error = ExecutorError("no")
    executor = scripted(
        Script(start_error=error) if place == "start" else Script(wait_error=error, exits=WELL)
    )
    with pytest.raises(ExecutorError, match="no"):
        await wait(executor, await start(executor, tmp_path))


async def test_stop_ends_a_run_and_does_not_change_an_end(tmp_path: Path) -> None:
    executor = scripted(Script())
    handle = await start(executor, tmp_path)
    await executor.stop(handle, 2.5)
    assert executor.stopped == [(handle, 2.5)]
    assert (await wait(executor, handle)).signal == 15
    executor.exit(1, BADLY)
    await executor.stop(handle, 0.0)
    assert await wait(executor, handle) == BADLY


async def test_deaf_run_does_not_end_when_asked(tmp_path: Path) -> None:
    executor = scripted(Script(deaf=True))
    handle = await start(executor, tmp_path)
    with anyio.move_on_after(0.02) as scope:
        await executor.stop(handle, 0.0)
    assert scope.cancelled_caught
    await executor.destroy(handle)
    assert executor.running == set()


async def test_survivors_are_recovered_and_others_are_lost() -> None:
    ended, runs = (TaskId(1), 1, 0), (TaskId(2), 3, 1)
    executor = FakeExecutor(survivors={ended: BADLY, runs: None})
    handle = TaskHandle("fake", data={"key": [1, 1, 0]})
    assert await executor.recover(handle) == handle
    assert await wait(executor, handle) == BADLY
    await executor.recover(TaskHandle("fake", data={"key": [2, 3, 1]}))
    assert executor.running == {ended, runs}
    with pytest.raises(TaskLost, match="t9 is not running"):
        await executor.recover(TaskHandle("fake", data={"key": [9, 1, 0]}))


async def test_close_is_noted() -> None:
    executor = FakeExecutor()
    await executor.close()
    assert executor.closed
    assert (await executor.fingerprint()).healthy
