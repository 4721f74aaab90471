"""Tasks outlive the agent, and as far as possible their keeper."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import msgspec
import pytest
from edgerm_executor_process.executor import ProcessExecutor
from edgerm_executor_process.exits import EXIT_UNKNOWN

from edgerm_core.errors import ExecutorError, TaskLost
from edgerm_core.interfaces import TaskHandle
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import PATIENCE_S, RunStarter, until

from .workloads import launch, living, shell

pytestmark = pytest.mark.anyio

OTHER_AGENT = """
import json, os, sys
from pathlib import Path
import anyio, msgspec
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.tasks import Implementation
from edgerm_core.resources import Resources
from edgerm_core.testing.sandboxes import DirectorySandbox
from edgerm_executor_process.config import ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

async def main(base):
    executor = ProcessExecutor(ProcessConfig(state_dir=base + "/executor"))
    handles = []
    for number, text in enumerate(sys.argv[2:], 1):
        launch = TaskLaunch(
            number, 1, 0, "other", Implementation("process", options={"shell": text}), None,
            Resources(), {"EDGERM_TEST_RUN": base}
        )
        handle = await executor.start(launch, DirectorySandbox(Path(base, str(number))))
        handles.append(msgspec.to_builtins(handle))
    print(json.dumps(handles), flush=True)
    os._exit(1)

anyio.run(main, sys.argv[1])
"""


async def _die_after_starting(base: Path, *texts: str) -> list[TaskHandle]:
    """Start tasks in an agent process that then dies hard; return their handles."""
    done = await anyio.run_process([sys.executable, "-c", OTHER_AGENT, str(base), *texts], check=False)
    assert done.returncode == 1, done.stderr
    return msgspec.json.decode(done.stdout, type=list[TaskHandle])


async def _keeper_pid(run: RunStarter) -> int:
    executor = run.executor
    assert isinstance(executor, ProcessExecutor)
    return int((await executor._ask("hello"))["pid"])


async def test_agent_that_dies_hard_loses_neither_tasks_nor_exits_nor_output(
    run: RunStarter, tmp_path: Path
) -> None:
    first, second = await _die_after_starting(
        tmp_path, "echo over; exit 7", "until test -e go; do sleep 0.01; done; echo gone on; exit 8"
    )
    for handle in (first, second):
        assert await run.executor.recover(handle) == handle
        run.handles.append(handle)
    with anyio.fail_after(PATIENCE_S):
        assert (await run.executor.wait(first)).exit_code == 7
        (tmp_path / "2" / "work" / "go").touch()
        assert (await run.executor.wait(second)).exit_code == 8
    for number, printed in ((1, b"over\n"), (2, b"gone on\n")):
        files = list((tmp_path / str(number) / "logs").glob("stdout.*"))
        assert [path.read_bytes() for path in files] == [printed]


async def test_killed_keeper_costs_the_exit_code_but_neither_task_nor_output(run: RunStarter) -> None:
    spec = shell("echo before; until test -e go; do echo x; sleep 0.01; done; echo after; exit 3")
    handle = await run(spec)
    result = None

    async def wait() -> None:
        nonlocal result
        result = await run.executor.wait(handle)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await until(lambda: run.printed(spec) != b"", "it never printed")
            keeper = await _keeper_pid(run)
            os.kill(keeper, signal.SIGKILL)
            # The one who waits starts the next keeper, which reads on.
            size = len(run.printed(spec))
            await until(lambda: len(run.printed(spec)) > size + 100, "nobody reads its output any more")
            assert await _keeper_pid(run) != keeper
            (run.sandbox(spec).work_dir / "go").touch()
    assert result is not None
    assert not result.ok
    assert result.reason == EXIT_UNKNOWN
    assert result.exit_code is None
    assert "keeper" in result.message
    printed = run.printed(spec)
    assert printed.startswith(b"before\n")
    assert printed.endswith(b"after\n")
    assert living(spec) == []


async def test_run_can_be_stopped_after_its_keeper_was_killed(run: RunStarter) -> None:
    spec = shell("setsid sleep 601 & trap '' TERM; while :; do sleep 0.1; done")
    handle = await run(spec)
    os.kill(await _keeper_pid(run), signal.SIGKILL)
    with anyio.fail_after(PATIENCE_S):
        await run.executor.stop(handle, 0.2)
        assert not (await run.executor.wait(handle)).ok
    assert living(spec) == []


async def test_run_can_be_destroyed_after_its_keeper_was_killed(run: RunStarter) -> None:
    spec = shell("setsid sleep 601 & sleep 602")
    handle = await run(spec)
    os.kill(await _keeper_pid(run), signal.SIGKILL)
    await run.restart_agent()
    with anyio.fail_after(PATIENCE_S):
        await run.executor.destroy(handle)
    assert living(spec) == []


@pytest.mark.root
async def test_a_start_whose_keeper_was_killed_is_lost_and_not_done_twice(run: RunStarter) -> None:
    spec = shell("echo begun; setsid sleep 601 & sleep 602")
    await run(spec)
    await until(lambda: run.printed(spec) != b"", "it never began")
    os.kill(await _keeper_pid(run), signal.SIGKILL)
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(ExecutorError, match="may have begun") as lost:
            await run.executor.start(
                spec, run.sandbox(spec)
            )  # As the executor itself, asking the next one.
        assert (lost.value.reason, lost.value.recoverable) == (Reason.AGENT_RESTARTED, True)
        assert living(spec) == []
        again = msgspec.structs.replace(spec, restarts=1)
        assert living(again) == []
        run.handles.append(await run.executor.start(again, run.sandbox(spec)))


@pytest.mark.root
async def test_a_start_whose_keeper_was_killed_is_ended_although_it_has_little_of_the_processor(
    run: RunStarter,
) -> None:
    spec = shell(
        "for i in $(seq 30); do (while :; do :; done) & done; echo begun; wait", resources="cpus:0.01"
    )
    await run(spec)
    await until(lambda: run.printed(spec) != b"", "it never began", limit_s=PATIENCE_S)
    os.kill(await _keeper_pid(run), signal.SIGKILL)
    with pytest.raises(ExecutorError, match="may have begun"):
        await run.executor.start(spec, run.sandbox(spec))
    assert living(spec) == []


async def test_exit_written_before_the_keeper_was_killed_is_found(run: RunStarter) -> None:
    handle = await run(shell("exit 5"))
    with anyio.fail_after(PATIENCE_S):
        await run.executor.wait(handle)
        os.kill(await _keeper_pid(run), signal.SIGKILL)
        await run.restart_agent()
        assert (await run.executor.wait(await run.executor.recover(handle))).exit_code == 5


async def test_end_that_nobody_saw_is_lost_and_its_children_are_ended(run: RunStarter) -> None:
    spec = shell("setsid sleep 601 & until test -e go; do sleep 0.01; done")
    handle = await run(spec)
    await until(lambda: len(living(spec)) >= 2, "its child never lived")
    keeper = await _keeper_pid(run)
    await run.executor.close()
    os.kill(keeper, signal.SIGKILL)
    (run.sandbox(spec).work_dir / "go").touch()
    await until(lambda: handle.data["pid"] not in living(spec), "it never ended")
    await run.restart_agent()
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(TaskLost, match="no exit status"):
            await run.executor.recover(handle)
        await run.executor.destroy(handle)
    assert living(spec) == []


@pytest.mark.parametrize("change", [{"boot_id": "another boot"}, {"start": 12345}])
async def test_handle_from_another_boot_or_with_a_reused_pid_is_lost_and_nobody_is_hurt(
    run: RunStarter, change: dict[str, object]
) -> None:
    bystander = launch("sleep", 600)
    handle = await run(bystander)
    await until(lambda: living(bystander) != [], "it has not become sleep")
    stale = TaskHandle(
        "process",
        1,
        {**handle.data, **change, "key": str(handle.data["key"]) + "0", "mark": "X=y", "group": {}},
    )
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(TaskLost):
            await run.executor.recover(stale)
        await run.executor.destroy(stale)
    assert living(bystander) == [handle.data["pid"]]
    with anyio.fail_after(PATIENCE_S):
        await run.executor.stop(handle, 2 * PATIENCE_S)
        assert (await run.executor.wait(handle)).signal == signal.SIGTERM, "its end went unnoticed"


async def test_start_that_is_repeated_is_the_same_run(run: RunStarter) -> None:
    spec = launch("sleep", 600)
    first = await run(spec)
    await run.restart_agent()
    assert (await run(spec)).data["pid"] == first.data["pid"]


async def test_keeper_ends_with_its_groups_when_there_is_nothing_to_keep(run: RunStarter) -> None:
    await run.to_end(launch("true"))
    keeper = await _keeper_pid(run)
    handle = run.handles.pop()
    await run.executor.destroy(handle)
    await run.executor.close()
    await until(
        lambda: not Path(f"/proc/{keeper}").exists(), "the keeper stays for ever", limit_s=PATIENCE_S
    )
    assert [path for path in handle.data["group"]["path"].values() if Path(path).parent.exists()] == []
