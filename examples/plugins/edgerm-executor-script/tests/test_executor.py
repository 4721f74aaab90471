"""Time limits, what is left behind, interpreters, and options that make no sense."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from edgerm_core.errors import SpecError
from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.logs import STDOUT, LogReader
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.sandboxes import DirectorySandbox
from scripts import launch, living

from edgerm_executor_script.config import Config
from edgerm_executor_script.executor import ScriptExecutor

pytestmark = pytest.mark.anyio

ESCAPES = """
setsid sh -c 'sleep 600 & exec sleep 601' &
(setsid sleep 602 &) &
sleep 0.2
echo "$1"
"""
"""Leaves a family in a session of its own, and a daemon whose parents are gone."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def executor(tmp_path: Path) -> ScriptExecutor:
    search_path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return ScriptExecutor(Config(time_limit_s=60, search_path=search_path), str(tmp_path))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[DirectorySandbox]:
    yield DirectorySandbox(tmp_path / "sandbox")


async def to_end(executor: ScriptExecutor, sandbox: DirectorySandbox, run: TaskLaunch) -> ExitResult:
    with anyio.fail_after(30):
        handle = await executor.start(run, sandbox)
        result = await executor.wait(handle)
        await executor.destroy(handle)
    return result


def printed(sandbox: DirectorySandbox) -> bytes:
    return LogReader(sandbox.log_dir, STDOUT).read(0, 1 << 16)[1]


async def test_a_script_that_takes_too_long_is_asked_to_end(
    executor: ScriptExecutor, sandbox: DirectorySandbox
) -> None:
    run = launch("trap 'echo bye; exit 4' TERM; sleep 600 & wait", time_limit_s=0.3)
    result = await to_end(executor, sandbox, run)
    assert (result.ok, result.reason, result.exit_code) == (False, Reason.TIME_LIMIT, 4)
    assert "time limit of 0.3 s" in result.message
    assert printed(sandbox) == b"bye\n"
    assert living(run) == []


async def test_one_that_does_not_listen_is_ended_after_its_grace(
    executor: ScriptExecutor, sandbox: DirectorySandbox
) -> None:
    run = launch("trap '' TERM; while :; do sleep 1; done", time_limit_s=0.2, grace_s=0.3)
    result = await to_end(executor, sandbox, run)
    assert (result.reason, result.signal) == (Reason.TIME_LIMIT, signal.SIGKILL)
    assert living(run) == []


async def test_what_a_script_leaves_behind_ends_with_it(
    executor: ScriptExecutor, sandbox: DirectorySandbox
) -> None:
    run = launch(ESCAPES, "hello")
    result = await to_end(executor, sandbox, run)
    assert result.ok
    assert printed(sandbox) == b"hello\n"
    assert living(run) == []


async def test_what_escaped_ends_when_the_task_is_stopped(
    executor: ScriptExecutor, sandbox: DirectorySandbox
) -> None:
    run = launch(ESCAPES + "sleep 600", "hello")
    with anyio.fail_after(30):
        handle = await executor.start(run, sandbox)
        while printed(sandbox) != b"hello\n":
            await anyio.sleep(0.01)
        assert len(living(run)) >= 4
        await executor.stop(handle, 0.0)
        assert living(run) == []
        await executor.destroy(handle)


async def test_the_next_agent_process_ends_what_the_last_one_left_and_nothing_of_another(
    executor: ScriptExecutor, tmp_path: Path
) -> None:
    neighbour = ScriptExecutor(Config(), "another agent")
    mine, kept, theirs = launch("sleep 600"), launch("sleep 600"), launch("sleep 600")
    with anyio.fail_after(30):
        await executor.start(mine, DirectorySandbox(tmp_path / "mine"))
        handle = await executor.start(kept, DirectorySandbox(tmp_path / "kept"))
        other = await neighbour.start(theirs, DirectorySandbox(tmp_path / "theirs"))
        again = ScriptExecutor(Config(), str(tmp_path))
        await again.sweep([handle])
        assert living(mine) == []
        assert living(kept)
        assert living(theirs)
        await again.destroy(other)
        assert living(theirs), "it belongs to another agent"
        await again.destroy(handle)
        assert living(kept) == []
        await executor.close()
        await neighbour.close()
    assert living(theirs) == []


async def test_a_module_is_run_where_there_is_no_text(
    executor: ScriptExecutor, sandbox: DirectorySandbox, tmp_path: Path
) -> None:
    module = tmp_path / "module"
    module.write_text('echo "from a module: $1"\n')
    assert (await to_end(executor, sandbox, launch(None, "x", module=module))).ok
    assert printed(sandbox) == b"from a module: x\n"


async def test_micropython_runs_where_it_is_installed(
    executor: ScriptExecutor, sandbox: DirectorySandbox
) -> None:
    facts = (await executor.fingerprint()).attributes
    assert facts["sh"] is True
    there = shutil.which("micropython", path=f"{Path(sys.executable).parent}:/usr/bin")
    assert facts.get("micropython", False) is (there is not None)
    run = launch("import sys; print(sys.implementation.name, sys.argv[1])", "x", interpreter="micropython")
    if there:
        assert (await to_end(executor, sandbox, run)).ok
        assert printed(sandbox) == b"micropython x\n"


async def test_without_any_interpreter_it_says_so(tmp_path: Path) -> None:
    fingerprint = await ScriptExecutor(Config(search_path=str(tmp_path)), "").fingerprint()
    assert not fingerprint.healthy
    assert f"none of micropython, sh is in {tmp_path}" in fingerprint.problem


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (launch("true", time_limit_s=61), "60 at most"),
        (launch("true", time_limit_s=0), "more than 0"),
        (launch("true", time_limit_s="soon"), "options.time_limit_s: expected a number"),
        (launch("true", interpreter="lua"), "'lua' is none of micropython, sh"),
        (launch(None), "either options.script or a module"),
        (launch("true", module=Path("/dev/null")), "either options.script or a module"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    executor: ScriptExecutor, sandbox: DirectorySandbox, run: TaskLaunch, sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        await executor.start(run, sandbox)


async def test_a_handle_of_nobody_is_left_alone(executor: ScriptExecutor) -> None:
    await executor.destroy(TaskHandle("script", data={"mark": ""}))
    await executor.stop(TaskHandle("script"), 0.0)
