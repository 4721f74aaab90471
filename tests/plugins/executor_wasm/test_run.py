"""One run, given its turns by the test: where it pauses, how it ends, and that it leaves nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from edgerm_executor_wasm import native
from edgerm_executor_wasm.call import plan_call
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.module import Module, compile_module
from edgerm_executor_wasm.options import Options
from edgerm_executor_wasm.outcome import RESULT_INVALID, STOPPED
from edgerm_executor_wasm.output import Output
from edgerm_executor_wasm.run import Run

from edgerm_core.logs import STDERR, LogReader
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.sandboxes import DirectorySandbox

MODULES = Path(__file__).parent / "modules"
MIB = 1 << 20
WAITS = """(module
  (memory (export "memory") 1)
  (func (export "f") (param $n i32) (result i32)
    (i32.store8 (i32.const 1) (i32.add (i32.load8_u (i32.const 1)) (i32.const 1)))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (loop $again (br_if $again (i32.eqz (i32.load8_u (i32.const 0)))))
    (i32.add (local.get $n) (i32.load8_u (i32.const 1)))))"""
"""Goes on until its first byte is set, however long that takes; returns its argument, 1 more, and how
often it has begun."""

MakeRun = Callable[..., Run]


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.fixture
def make_run(host: Host, tmp_path: Path) -> MakeRun:
    """Makes runs of a file in `modules`, or of a module's text."""

    def make(
        source: str,
        options: Options,
        *args: int,
        mem_limit_bytes: int = MIB,
        argv: tuple[str, ...] = ("task",),
        preopens: tuple[tuple[Path, str, bool], ...] = (),
    ) -> Run:
        text = source if source.startswith("(") else (MODULES / f"{source}.wat").read_text()
        module = Module(host, compile_module(host.engine, bytes(wasmtime.wat2wasm(text))))
        call = plan_call(module.functions, module.has_memory, options, args)
        output = Output(DirectorySandbox(tmp_path), call.returns_stdout)
        return Run(host, module, call, mem_limit_bytes, None, argv, {"A": "b"}, preopens, output)

    return make


def end_of(run: Run) -> ExitResult:
    """How an ended run ended, which must have released all of its guest."""
    assert not holds_anything(run)
    assert run.result is not None
    return run.result


def holds_anything(run: Run) -> bool:
    return run._store is not None or run._future is not None


class Epochs:
    """Advances the epoch as fast as it can, so that slices are short."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._advance)

    def _advance(self) -> None:
        while not self._over.wait(0.001):
            self._host.engine.increment_epoch()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_short_run_ends_in_one_turn_on_whose_thread_it_is(make_run: MakeRun, host: Host) -> None:
    run = make_run("numbers", Options(function="add"), 2, 40)
    assert run.result is None
    assert run.turn()
    assert host.current.run is run
    assert end_of(run).result == b"42"
    assert end_of(run).exit_code == 0


def test_run_that_uses_up_its_slices_goes_on_where_it_was(make_run: MakeRun, host: Host) -> None:
    run = make_run(WAITS, Options(function="f"), 40)
    with Epochs(host):
        for _ in range(3):
            assert not run.turn()
            assert run.result is None
            assert run.mem_bytes == 65536
        assert run._store is not None
        run._store.memory()[0] = 1
        while not run.turn():
            pass
    assert end_of(run).result == b"42"


def test_turns_of_two_runs_alternate(make_run: MakeRun, host: Host) -> None:
    runs = [make_run("spins", Options(function="rounds"), 20_000_000) for _ in range(2)]
    waiting = list(runs)
    with Epochs(host):
        while waiting:
            run = waiting.pop(0)
            if not run.turn():
                waiting.append(run)
            else:
                assert host.current.run is run
    assert [end_of(run).result for run in runs] == [b"0", b"0"]


def test_endless_run_is_aborted_between_turns_and_releases_all(make_run: MakeRun, host: Host) -> None:
    run = make_run("spins", Options())
    with Epochs(host):
        assert not run.turn()
    assert holds_anything(run)
    run.abort()
    assert end_of(run) == STOPPED


def test_run_aborted_before_its_first_turn_has_made_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("echo", Options(input=b"hello", result="stdout"))
    run.abort()
    assert end_of(run) == STOPPED
    assert list(tmp_path.iterdir()) == []


def test_abort_after_the_end_keeps_how_it_ended(make_run: MakeRun) -> None:
    run = make_run("numbers", Options(function="nothing"))
    assert run.turn()
    ended = run.result
    run.abort()
    assert run.result is ended


def test_sleeping_run_pauses_at_once_and_says_until_when(make_run: MakeRun) -> None:
    run = make_run("sleeps", Options(function="sleep_ms"), 50)
    began = time.monotonic()
    assert not run.turn()
    assert began <= run.clock_origin <= time.monotonic()
    assert began + 0.05 <= run.wake_at <= time.monotonic() + 0.05
    while not run.turn():
        time.sleep(max(0.0, run.wake_at - time.monotonic()))
    assert time.monotonic() >= run.wake_at
    assert int(end_of(run).result or b"") >= 50_000


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("traps", Options(function="unreachable"), Reason.TRAP),
        ("upper", Options(function="outside", abi="bytes"), RESULT_INVALID),
        ("upper", Options(function="too_large", abi="bytes"), RESULT_INVALID),
        ('(module (memory 100) (func (export "f")))', Options(function="f"), Reason.OUT_OF_MEMORY),
    ],
)
def test_bad_end_has_its_reason_and_releases_all(
    make_run: MakeRun, source: str, options: Options, reason: str
) -> None:
    run = make_run(source, options)
    assert run.turn()
    assert (end_of(run).ok, end_of(run).reason) == (False, reason)


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_of_the_guest_is_that_of_the_run(make_run: MakeRun, code: int) -> None:
    run = make_run("exits", Options(function="exits"), code)
    assert run.turn()
    assert (end_of(run).ok, end_of(run).exit_code) == (code == 0, code)


def test_bytes_are_placed_in_memory_and_read_back(make_run: MakeRun) -> None:
    run = make_run("upper", Options(function="upper", abi="bytes", input=b"abc"))
    assert run.turn()
    assert end_of(run).result == b"ABC"


def test_arguments_reach_a_command_and_its_output_the_log(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("arguments", Options(result="stdout"), argv=("task", "x y", "ü"))
    assert run.turn()
    assert end_of(run).result == b"b"
    logged = LogReader(tmp_path / "logs", STDERR).read(0, 1000)[1]
    assert logged == "task\0x y\0ü\0".encode()


def test_failure_of_the_executor_itself_is_the_runs_end(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run("echo", Options())

    def fail(*_: object) -> None:
        raise RuntimeError("no more ideas")

    monkeypatch.setattr(native, "make_wasi", fail)
    with caplog.at_level(logging.ERROR):
        assert run.turn()
    assert end_of(run).reason == Reason.LAUNCH_FAILED
    assert end_of(run).message == "The executor failed: RuntimeError: no more ideas."
    assert "run of a module failed" in caplog.text


def test_run_with_directories_begins_among_the_long_ones(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run = make_run("files", Options(function="write"), preopens=((tmp_path / "data", ".", True),))
    assert run.long
    assert run.turn()
    assert end_of(run).result == b"0"
    assert (tmp_path / "data" / "note.txt").read_bytes() == b"written"
    assert not make_run("files", Options(function="write")).long
