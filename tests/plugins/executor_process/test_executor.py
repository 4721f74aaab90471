"""What a process sees, how it ends, and what is left of it: nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from edgerm_executor_process.config import DEFAULT_PATH, ProcessConfig
from edgerm_executor_process.executor import ProcessExecutor

from edgerm_core.errors import ConfigError, ExecutorError, SpecError, TaskLost
from edgerm_core.interfaces import TaskHandle
from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.tasks import Reason, Volume
from edgerm_core.testing.contracts.executor import PATIENCE_S, RunStarter, until

from .workloads import FAMILY, launch, living, shell

pytestmark = pytest.mark.anyio


# --- what it sees ---


async def test_environment_is_what_was_given_and_nothing_of_the_agent(
    run: RunStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "hush")
    spec = launch("env", env={"COLOUR": "blue", "EMPTY": "", "TWO": "a\nb", "OMEGA": "Ω"})
    assert (await run.to_end(spec)).ok
    printed = run.printed(spec).decode()
    names = {line.partition("=")[0] for line in printed.splitlines() if "=" in line}
    assert names == {"COLOUR", "EMPTY", "TWO", "OMEGA", "PATH", "EDGERM_TEST_RUN", "EDGERM_RESULT_FILE"}
    assert f"PATH={DEFAULT_PATH}\n" in printed
    assert "OMEGA=Ω\n" in printed


async def test_path_of_the_spec_is_kept(run: RunStarter) -> None:
    spec = launch("/usr/bin/env", env={"PATH": "/nowhere"})
    assert (await run.to_end(spec)).ok
    assert b"PATH=/nowhere\n" in run.printed(spec)


async def test_standard_input_is_empty(run: RunStarter) -> None:
    spec = launch("cat")
    assert (await run.to_end(spec)).ok
    assert run.printed(spec) == b""


async def test_no_other_file_is_open(run: RunStarter) -> None:
    spec = shell("ls /proc/self/fd | wc -l")
    assert (await run.to_end(spec)).ok
    assert run.printed(spec).strip() == b"4", "0, 1, 2 and the directory that ls reads"


async def test_working_directory_is_the_sandbox(run: RunStarter) -> None:
    spec = shell("pwd; echo kept > file")
    assert (await run.to_end(spec)).ok
    work_dir = run.sandbox(spec).work_dir
    assert run.printed(spec).decode().strip() == str(work_dir.resolve())
    assert (work_dir / "file").read_text() == "kept\n"


@pytest.fixture
def quit_is_ignored() -> Iterator[None]:
    """As a shell lets a program that it puts into the background ignore it."""
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGQUIT, before)


async def test_it_leads_a_session_and_has_default_signals(quit_is_ignored: None, run: RunStarter) -> None:
    spec = launch(
        "python3",
        "-c",
        "import os, re\n"
        "print(os.getsid(0) == os.getpid())\n"
        "print(re.search('SigIgn:(.*)', open('/proc/self/status').read())[1])",
    )
    assert (await run.to_end(spec)).ok
    leads, ignored = run.printed(spec).decode().split()
    assert leads == "True"
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25) when it starts; nothing else is ignored, but for
    # the C library's own 32 and 33, which no program can set and some parents hand down.
    assert int(ignored, 16) & ~((1 << 12) | (1 << 24) | (1 << 31) | (1 << 32)) == 0


async def test_numbers_become_arguments(run: RunStarter) -> None:
    spec = launch("printf", "%s %s", 3, 0.5)
    assert (await run.to_end(spec)).ok
    assert run.printed(spec) == b"3 0.5"


async def test_streams_are_kept_apart_and_can_be_reopened(run: RunStarter) -> None:
    spec = shell("echo out > /dev/stdout; echo err > /dev/stderr")
    assert (await run.to_end(spec)).ok
    assert run.printed(spec) == b"out\n"
    assert [path.read_bytes() for path in run.sandbox(spec).log_dir.glob("stderr.*")] == [b"err\n"]


async def test_program_from_a_blob_runs_and_the_blob_is_untouched(run: RunStarter, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_text('#!/bin/sh\necho "got $1"\nexit 6\n')
    blob.chmod(0o444)
    spec = launch("word", blob_path=blob)
    result = await run.to_end(spec)
    assert result.exit_code == 6
    assert run.printed(spec) == b"got word\n"
    assert blob.stat().st_mode & 0o777 == 0o444


async def test_volume_is_seen_at_its_path(run: RunStarter, tmp_path: Path) -> None:
    directory = tmp_path / "volume"
    directory.mkdir()
    spec = shell("echo data > deep/store/file")
    spec = msgspec.structs.replace(spec, volumes=((Volume("/deep/store"), directory),))
    assert (await run.to_end(spec)).ok
    assert (directory / "file").read_text() == "data\n"


# --- how it ends ---


async def test_signal_that_ends_it_is_reported(run: RunStarter) -> None:
    result = await run.to_end(shell("kill -SEGV $$"))
    assert not result.ok
    assert result.reason == Reason.SIGNALED
    assert result.signal == signal.SIGSEGV
    assert result.exit_code is None
    assert "SIGSEGV" in result.message


async def test_result_file_beyond_the_limit_is_ignored_with_a_note(run: RunStarter) -> None:
    result = await run.to_end(shell(f'head -c {MAX_RESULT_BYTES + 1} /dev/zero > "$EDGERM_RESULT_FILE"'))
    assert result.ok
    assert result.result is None
    assert str(MAX_RESULT_BYTES) in result.message


async def test_result_file_that_is_a_link_is_not_followed(run: RunStarter) -> None:
    result = await run.to_end(shell('ln -s /etc/passwd "$EDGERM_RESULT_FILE"'))
    assert result.ok
    assert result.result is None
    assert "result file" in result.message


# --- what cannot start ---


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("no-such-command",), "not found on this agent"),
        (("/no/such/program",), "not there"),
        (("/etc/passwd",), "not executable"),
        (("/etc",), "directory"),
    ],
)
async def test_command_that_is_no_program_says_why(
    run: RunStarter, args: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ExecutorError, match=words) as caught:
        await run(launch(*args))
    assert caught.value.reason == Reason.LAUNCH_FAILED
    assert not caught.value.recoverable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(44),
            "not a program for this machine",
        ),
        (b"echo no first line\n", "not a program for this machine"),
        (b"#!/no/such/interpreter\n", "interpreter"),
    ],
)
async def test_blob_that_cannot_be_executed_says_why(
    run: RunStarter, tmp_path: Path, content: bytes, words: str
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(content)
    with pytest.raises(ExecutorError, match=words):
        await run(launch(blob_path=blob))


async def test_working_directory_that_is_gone_says_so(run: RunStarter) -> None:
    spec = launch("true")

    class Vanished:
        work_dir = Path("/no/such/directory")
        state_dir = run.sandbox(spec).state_dir
        log_dir = run.sandbox(spec).log_dir
        log_limit_bytes = 4096

        def report(self, text: str) -> None:
            raise AssertionError(f"nothing takes long here: {text}")

    with pytest.raises(ExecutorError, match="/no/such/directory"):
        await run.executor.start(spec, Vanished())


@pytest.mark.parametrize(
    "spec",
    [
        launch(),
        launch(""),
        shell(" "),
        launch("true", shell="true"),
        launch("true", pids_limit=0),
        launch("true", pids_limit="many"),
        launch("a\0b"),
    ],
)
async def test_command_that_makes_no_sense_is_a_spec_error(run: RunStarter, spec: object) -> None:
    with pytest.raises(SpecError, match="task-"):
        await run(spec)  # type: ignore[arg-type]


def test_user_who_does_not_exist_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"executor\.process\.user"):
        ProcessExecutor(ProcessConfig(state_dir=str(tmp_path), user="nobody-of-that-name"))


@pytest.mark.root
async def test_tasks_run_as_the_configured_user(tmp_path: Path) -> None:
    run = RunStarter(
        lambda: ProcessExecutor(ProcessConfig(state_dir=str(tmp_path / "executor"), user="nobody")),
        tmp_path / "sandboxes",
    )
    spec = shell("id -un; echo x > file; echo y > /dev/stdout; test -w /etc/passwd || echo safe")
    result = await run.to_end(spec)
    assert result.ok, result.message
    assert run.printed(spec) == b"nobody\ny\nsafe\n"
    await run.executor.destroy(run.handles[0])
    await run.executor.close()


# --- what is left ---


async def _family_started(run: RunStarter, more: str) -> tuple[TaskHandle, Callable[[], list[int]]]:
    spec = shell(FAMILY + more)
    handle = await run(spec)
    await until(
        lambda: run.printed(spec) == b"ready\n" and len(living(spec)) >= 5, "the family never lived"
    )
    return handle, lambda: living(spec)


async def test_stop_ends_children_in_other_sessions_too(
    run: RunStarter, groups_of: Callable[[dict[str, object]], list[Path]]
) -> None:
    handle, alive = await _family_started(run, "sleep 600")
    assert groups_of(handle.data)
    with anyio.fail_after(PATIENCE_S):
        await run.executor.stop(handle, 5.0)
    assert alive() == []


async def test_destroy_ends_children_in_other_sessions_too(run: RunStarter) -> None:
    handle, alive = await _family_started(run, "sleep 600")
    with anyio.fail_after(PATIENCE_S):
        await run.executor.destroy(handle)
    assert alive() == []


async def test_children_left_by_a_finished_process_are_ended(run: RunStarter) -> None:
    handle, alive = await _family_started(run, "until test -e go; do sleep 0.01; done; exit 4")
    (Path(str(handle.data["result_path"])).parent / "go").touch()
    with anyio.fail_after(PATIENCE_S):
        result = await run.executor.wait(handle)
    assert result.exit_code == 4
    assert alive() == []


async def test_descendants_that_ignore_sigterm_die_after_the_grace(run: RunStarter) -> None:
    spec = shell("trap '' TERM; sleep 601 & setsid sleep 602 & echo ready; wait; sleep 603")
    handle = await run(spec)
    await until(lambda: run.printed(spec) == b"ready\n", "it never got ready")
    started = anyio.current_time()
    with anyio.fail_after(PATIENCE_S):
        await run.executor.stop(handle, 0.3)
        result = await run.executor.wait(handle)
    assert anyio.current_time() - started >= 0.3
    assert result.signal == signal.SIGKILL
    assert living(spec) == []


async def test_a_longer_grace_does_not_put_off_a_shorter_one(run: RunStarter) -> None:
    spec = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    handle = await run(spec)
    await until(lambda: run.printed(spec) == b"ready\n", "it never got ready")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(run.executor.stop, handle, 0.3)
            group.start_soon(run.executor.stop, handle, 600.0)


async def test_nothing_stays_in_the_state_directory(run: RunStarter) -> None:
    spec = launch("true")
    await run.to_end(spec)
    await run.executor.destroy(run.handles[0])
    assert list(run.sandbox(spec).state_dir.iterdir()) == []


async def test_two_hundred_at_once(run: RunStarter) -> None:
    codes: dict[int, int | None] = {}

    async def one(number: int) -> None:
        codes[number] = (await run.to_end(shell(f"exit {number}"))).exit_code

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(one, number)
    assert codes == {number: number for number in range(200)}


async def test_directory_longer_than_a_socket_path_may_be(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    run = RunStarter(lambda: ProcessExecutor(ProcessConfig(state_dir=str(deep))), tmp_path / "sandboxes")
    assert (await run.to_end(launch("true"))).ok
    assert (deep / "keeper.sock").stat().st_mode & 0o077 == 0, "nobody else may connect"
    await run.executor.destroy(run.handles[0])
    await run.executor.close()


async def test_handle_is_small(run: RunStarter) -> None:
    handle = await run(launch("true"))
    assert len(json.dumps(handle.data)) < 2500


async def test_handle_of_another_layout_is_lost(run: RunStarter) -> None:
    with pytest.raises(TaskLost, match="layout 2"):
        await run.executor.recover(TaskHandle("process", 2, {}))
