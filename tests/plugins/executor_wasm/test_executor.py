"""Runs of every kind, through the executor."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import msgspec
import pytest

from edgerm_core.errors import ExecutorError, SpecError, TaskLost
from edgerm_core.interfaces import TaskHandle
from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.logs import STDERR
from edgerm_core.tasks import Implementation, Reason, Volume
from edgerm_core.testing.contracts.executor import until

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig

pytestmark = pytest.mark.anyio

BAD_FILE, NO_ENTRY, NOT_CAPABLE, READ_ONLY, NOT_PERMITTED, ACCESS = 8, 44, 76, 69, 63, 2


# --- arguments and results ---


async def test_command_gets_its_arguments_and_environment(rig: Rig) -> None:
    launch = rig.launch("arguments", "", "-v", 3, 1.5, "grüße", env={"PLACE": "roof", "OTHER": "x"})
    assert (await rig.run(launch)).ok
    assert rig.printed(launch, STDERR).decode().split("\0")[:-1] == [launch.name, "-v", "3", "1.5", "grüße"]
    assert rig.printed(launch) == b"roof"


async def test_nothing_of_the_agents_environment_is_seen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "agent's own")
    launch = rig.launch("arguments")
    assert (await rig.run(launch)).ok
    assert rig.printed(launch) == b""


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        ("add", (40, "2"), b"42"),
        ("add", (0xFFFFFFFF, 2), b"1"),
        ("same64", (-(1 << 63),), b"-9223372036854775808"),
        ("half", (3,), b"1.5"),
        ("half32", ("0.5",), b"0.25"),
        ("both", (7, 0.5), b"[7,0.5]"),
        ("nothing", (), None),
    ],
)
async def test_function_returns_numbers_as_text(
    rig: Rig, function: str, args: tuple[int | float | str, ...], result: bytes | None
) -> None:
    ended = await rig.run(rig.launch("numbers", function, *args))
    assert (ended.ok, ended.reason, ended.exit_code) == (True, Reason.EXITED, 0)
    assert ended.result == result


async def test_wrong_arguments_are_the_specs_fault(rig: Rig) -> None:
    for launch in (
        rig.launch("numbers", "add", 1),
        rig.launch("numbers", "add", 1, "two"),
        rig.launch("numbers", "takes_reference", 1),
        rig.launch("numbers", "sub", 1, 2),
        rig.launch("numbers"),
    ):
        with pytest.raises(SpecError):
            await rig.start(launch)


async def test_task_without_a_module_is_the_specs_fault(rig: Rig) -> None:
    launch = msgspec.structs.replace(
        rig.launch("numbers"), implementation=Implementation("wasm"), blob_path=None
    )
    with pytest.raises(SpecError, match="needs a module"):
        await rig.start(launch)


async def test_reactor_is_initialised_once(rig: Rig) -> None:
    assert (await rig.run(rig.launch("reactor", "ready"))).result == b"1"


@pytest.mark.parametrize("size", [0, 1, 60_000])
async def test_bytes_in_and_bytes_out(rig: Rig, size: int) -> None:
    data = (b"The quick brown fox. " * 3000)[:size]
    ended = await rig.run(rig.launch("upper", "upper", abi="bytes", input=data))
    assert ended.ok, ended.message
    assert ended.result == data.upper()


async def test_large_input_may_grow_the_memory(rig: Rig) -> None:
    data = b"x" * 300_000
    ended = await rig.run(rig.launch("upper", "upper", abi="bytes", input=data))
    assert ended.reason == "result-invalid"
    assert str(MAX_RESULT_BYTES) in ended.message


@pytest.mark.parametrize(
    ("function", "problem"), [("outside", "outside the memory"), ("too_large", "exceeds the limit")]
)
async def test_result_that_points_to_nowhere_fails_the_run(rig: Rig, function: str, problem: str) -> None:
    ended = await rig.run(rig.launch("upper", function, abi="bytes", input=b""))
    assert (ended.ok, ended.reason) == (False, "result-invalid")
    assert problem in ended.message


async def test_input_that_the_module_has_no_room_for_fails_the_run(rig: Rig) -> None:
    launch = rig.launch("upper", "upper", abi="bytes", input=b"x" * 100_000, resources="mem:0.07")
    ended = await rig.run(launch)
    assert (ended.ok, ended.reason) == (False, "result-invalid")
    assert "do not fit" in ended.message


async def test_standard_output_can_be_the_result(rig: Rig) -> None:
    launch = rig.launch("echo", input=b"\0\1\2 hello", result="stdout")
    ended = await rig.run(launch)
    assert (ended.ok, ended.result) == (True, b"\0\1\2 hello")
    assert rig.printed(launch) == b"\0\1\2 hello"


async def test_standard_output_too_large_for_a_result_fails_the_run_and_stays_in_the_log(rig: Rig) -> None:
    launch = rig.launch("echo", input=b"x" * (MAX_RESULT_BYTES + 1), result="stdout")
    ended = await rig.run(launch)
    assert (ended.ok, ended.reason, ended.result) == (False, "result-invalid", None)
    assert len(rig.printed(launch)) == MAX_RESULT_BYTES + 1
    assert (await rig.run(rig.launch("echo", input=b"x" * MAX_RESULT_BYTES, result="stdout"))).ok


async def test_run_that_prints_nothing_leaves_no_trace_on_disk(rig: Rig) -> None:
    launch = rig.launch("numbers", "nothing")
    assert (await rig.run(launch)).ok
    command = rig.launch("exits", "exits", 0)
    assert (await rig.run(command)).ok
    assert not rig.sandbox_path(launch).exists()
    assert not rig.sandbox_path(command).exists()


async def test_output_the_disk_refuses_is_the_runs_own_loss(rig: Rig) -> None:
    launch = rig.launch("echo", input=b"hello")
    rig.sandbox_path(launch).mkdir(parents=True)
    (rig.sandbox_path(launch) / "logs").write_text("not a directory")
    with anyio.fail_after(10):
        assert (await rig.run(launch)).reason in (Reason.EXITED, Reason.TRAP)
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok


# --- ends ---


@pytest.mark.parametrize(
    ("function", "args", "cause", "frame"),
    [
        ("unreachable", (), "`unreachable` instruction executed", "at inner"),
        ("divide", (0,), "integer divide by zero", "offset 0x"),
        ("out_of_bounds", (), "out of bounds memory access", "offset 0x"),
        ("recurse", (0,), "call stack exhausted", "at recurse"),
    ],
)
async def test_trap_is_told_with_its_backtrace(
    rig: Rig, function: str, args: tuple[int, ...], cause: str, frame: str
) -> None:
    ended = await rig.run(rig.launch("traps", function, *args))
    assert (ended.ok, ended.reason, ended.exit_code) == (False, Reason.TRAP, None)
    sentence, *frames = ended.message.splitlines()
    assert cause in sentence
    assert frame in frames[0]
    assert len(ended.message) <= 2000
    if function == "unreachable":
        assert ["inner" in frames[0], "outer" in frames[1]] == [True, True]


async def test_trap_in_the_start_function_is_a_trap(rig: Rig) -> None:
    ended = await rig.run(
        rig.launch('(module (func $boot unreachable) (start $boot) (func (export "_start")))')
    )
    assert ended.reason == Reason.TRAP
    assert "boot" in ended.message


async def test_data_outside_the_memory_is_a_trap(rig: Rig) -> None:
    text = '(module (memory 1) (data (i32.const 70000) "x") (func (export "_start")))'
    assert (await rig.run(rig.launch(text))).reason == Reason.TRAP


async def test_missing_import_says_which(rig: Rig) -> None:
    with pytest.raises(ExecutorError, match="env::radio_send") as caught:
        await rig.start(rig.launch('(module (import "env" "radio_send" (func)) (func (export "_start")))'))
    assert caught.value.reason == Reason.BLOB_INVALID


async def test_run_of_an_earlier_agent_process_is_lost(rig: Rig) -> None:
    handle = await rig.start(rig.launch("sleeps"))
    await rig.new_executor()
    with pytest.raises(TaskLost, match=f"run {handle.data['run']} is not in this agent process"):
        await rig.executor.recover(handle)
    with pytest.raises(TaskLost):
        await rig.executor.wait(TaskHandle("wasm", 1, {"run": ["no", "text"]}))


async def test_same_run_is_not_started_twice(rig: Rig) -> None:
    launch = rig.launch("sleeps")
    await rig.start(launch)
    with pytest.raises(ExecutorError, match="already"):
        await rig.start(launch)


async def test_closed_executor_starts_nothing(rig: Rig) -> None:
    await rig.executor.close()
    with pytest.raises(ExecutorError, match="stopping"):
        await rig.start(rig.launch("numbers", "nothing"))


async def test_executor_closed_while_it_loads_leaves_no_threads(rig: Rig) -> None:
    before = set(threading.enumerate())

    async def start() -> None:
        with pytest.raises(ExecutorError, match="stopping"):
            await rig.start(rig.launch("numbers", "nothing"))

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await anyio.lowlevel.checkpoint()
        await rig.executor.close()

    def left() -> set[str]:
        return {t.name for t in set(threading.enumerate()) - before if t.name.startswith("wasm-")}

    # It does not wait for ever for a thread that gets no processor.
    await until(lambda: not left(), "threads go on")


# --- memory ---


async def test_memory_ends_at_the_limit(rig: Rig) -> None:
    for pages, result in ((15, b"1"), (16, b"-1"), (65_535, b"-1")):
        assert (await rig.run(rig.launch("memory", "grow", pages, resources="mem:1"))).result == result


async def test_task_that_asks_for_no_memory_gets_the_default(rig: Rig) -> None:
    assert (await rig.run(rig.launch("memory", "grow", 64 * 16 - 1))).result == b"1"
    assert (await rig.run(rig.launch("memory", "grow", 64 * 16))).result == b"-1"


@pytest.mark.parametrize("pages", [17, 65_536])
async def test_module_that_starts_beyond_the_limit_is_out_of_memory(rig: Rig, pages: int) -> None:
    ended = await rig.run(
        rig.launch(f'(module (memory {pages}) (func (export "_start")))', resources="mem:1")
    )
    assert (ended.ok, ended.reason) == (False, Reason.OUT_OF_MEMORY)
    assert "limit of 1 MiB" in ended.message
    assert f"{pages} pages" in ended.message


@pytest.mark.parametrize(
    "tables", ["(table 1000000 funcref)", "(table 1 funcref)" * 17, "(table 4000000000 funcref)"]
)
async def test_huge_tables_are_refused(rig: Rig, tables: str) -> None:
    ended = await rig.run(rig.launch(f'(module {tables} (func (export "_start")))'))
    assert (ended.ok, ended.reason) == (False, Reason.LAUNCH_FAILED)
    assert "table" in ended.message


async def test_table_grows_to_its_limit_only(rig: Rig) -> None:
    text = """(module (table $t 1 funcref)
      (func (export "grow") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0))))"""
    assert (await rig.run(rig.launch(text, "grow", 99_999))).result == b"1"
    assert (await rig.run(rig.launch(text, "grow", 100_000))).result == b"-1"


async def test_stats_tell_memory_and_processor_time(rig: Rig) -> None:
    handle = await rig.start(rig.launch("memory", "grow_and_spin", 31))
    with anyio.fail_after(30):
        while True:
            stats = await rig.executor.stats(handle)
            # Its first slice may have been over before it had grown.
            if stats.cpu_s and stats.mem_bytes == 2 << 20:
                break
            await anyio.sleep(0.01)
    assert stats.mem_peak_bytes == 2 << 20
    assert (await rig.executor.stats(TaskHandle("wasm"))).cpu_s is None


# --- files ---


async def test_without_a_directory_nothing_can_be_opened(rig: Rig) -> None:
    for function in ("read", "write", "escape"):
        assert (await rig.run(rig.launch("files", function))).result == str(BAD_FILE).encode()


async def test_files_of_the_spec_are_in_the_working_directory(rig: Rig) -> None:
    launch = rig.launch("files", "read")
    (rig.sandbox(launch).work_dir / "note.txt").write_text("remember")
    assert (await rig.run(launch)).result == b"0"
    assert rig.printed(launch) == b"remember"


async def test_volume_is_read_and_written(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    volumes = ((Volume("data"), tmp_path / "volume"),)
    assert (await rig.run(rig.launch("files", "write", volumes=volumes))).result == b"0"
    assert (tmp_path / "volume" / "note.txt").read_text() == "written"
    launch = rig.launch("files", "read", volumes=volumes)
    assert (await rig.run(launch)).result == b"0"
    assert rig.printed(launch) == b"written"


async def test_read_only_volume_is_read_and_not_written(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "note.txt").write_text("as it was")
    volumes = ((Volume("data", read_only=True), tmp_path / "volume"),)
    assert (await rig.run(rig.launch("files", "read", volumes=volumes))).result == b"0"
    refused = await rig.run(rig.launch("files", "write", volumes=volumes))
    assert refused.ok
    assert int(refused.result or b"0") in (NOT_CAPABLE, READ_ONLY, NOT_PERMITTED, ACCESS, BAD_FILE)
    assert (tmp_path / "volume" / "note.txt").read_text() == "as it was"


async def test_nothing_outside_a_volume_is_reached(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "note.txt").write_text("outside")
    volumes = ((Volume("data"), tmp_path / "volume"),)
    escaped = await rig.run(rig.launch("files", "escape", volumes=volumes))
    assert int(escaped.result or b"0") != 0
    (tmp_path / "volume" / "note.txt").symlink_to(tmp_path / "note.txt")
    launch = rig.launch("files", "read", volumes=volumes)
    assert int((await rig.run(launch)).result or b"0") != 0
    assert rig.printed(launch) == b""


async def test_volume_that_is_gone_fails_the_run_alone(rig: Rig, tmp_path: Path) -> None:
    ended = await rig.run(rig.launch("files", "read", volumes=((Volume("data"), tmp_path / "gone"),)))
    assert (ended.ok, ended.reason) == (False, Reason.LAUNCH_FAILED)
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok


async def test_run_inside_a_file_operation_that_never_returns_can_be_stopped(
    rig: Rig, tmp_path: Path
) -> None:
    """Nobody writes to the pipe, so that opening it blocks a worker thread inside the system call."""
    (tmp_path / "volume").mkdir()
    pipe = tmp_path / "volume" / "note.txt"
    os.mkfifo(pipe)
    handle = await rig.start(rig.launch("files", "read", volumes=((Volume("data"), tmp_path / "volume"),)))
    await anyio.sleep(0.1)
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok, "short runs go on"
    with anyio.fail_after(30):
        await rig.executor.stop(handle, 0.1)
    ended = await rig.wait(handle)
    assert (ended.ok, ended.reason) == (False, Reason.KILLED_BY_REQUEST)
    # Let the thread go, whether it waits in open or has gone on to read.
    with anyio.move_on_after(5):
        while True:
            try:
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                break
            except OSError:
                await anyio.sleep(0.01)
