from __future__ import annotations

import io
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

from edgerm_core.cli import watching
from edgerm_core.cli.settings import Settings
from edgerm_core.cli.watching import Printer, Watch, describe_end, exit_code, labels
from edgerm_core.client.framework import Framework
from edgerm_core.client.logs import LogPiece
from edgerm_core.client.tasks import Task
from edgerm_core.errors import RequestFailed, TransportError
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.messages import LogStream, TaskUpdate
from edgerm_core.tasks import TaskState

pytestmark = pytest.mark.anyio

OUT, ERR = LogStream.STDOUT, LogStream.STDERR


def update(version: int, state: TaskState, **fields: Any) -> TaskUpdate:
    return TaskUpdate(TaskId(1), version, state, **fields)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (update(1, TaskState.FINISHED, exit_code=0), 0),
        (update(1, TaskState.FINISHED), 0),
        (update(1, TaskState.FAILED, exit_code=3), 3),
        (update(1, TaskState.FAILED, signal=9), 137),
        (update(1, TaskState.KILLED, signal=15), 143),
        (update(1, TaskState.KILLED, exit_code=0), 1),
        (update(1, TaskState.FAILED, reason="trap"), 1),
        (update(1, TaskState.ERROR), 1),
        (update(1, TaskState.GONE), 1),
    ],
)
def test_exit_code(end: TaskUpdate, code: int) -> None:
    assert exit_code(end) == code


def test_end_is_told_in_one_sentence_unless_it_went_well() -> None:
    assert describe_end("t1", update(1, TaskState.FINISHED)) == ""
    end = update(1, TaskState.FAILED, reason="trap", message="out of bounds\nat 0x1\n")
    assert describe_end("t1", end) == "t1 FAILED (trap): out of bounds"


def pieces(*parts: tuple[LogStream, int, bytes]) -> list[LogPiece]:
    return [LogPiece.make(data, stream, offset, 0) for stream, offset, data in parts]


def printed(prefix: str, parts: Sequence[LogPiece]) -> tuple[bytes, bytes]:
    out, err = io.BytesIO(), io.BytesIO()
    printer = Printer(prefix, out, err)
    for piece in parts:
        printer.show(piece)
    printer.end()
    return out.getvalue(), err.getvalue()


def test_bytes_pass_unchanged_and_streams_stay_apart() -> None:
    parts = pieces((OUT, 0, b"a\xff"), (ERR, 0, b"oops\n"), (OUT, 2, b"b"))
    assert printed("", parts) == (b"a\xffb", b"oops\n")


def test_prefix_stands_before_every_line_also_across_pieces() -> None:
    parts = pieces((OUT, 0, b"one\ntw"), (ERR, 0, b"e"), (OUT, 6, b"o\n\nlast"))
    assert printed("x/0: ", parts) == (b"x/0: one\nx/0: two\nx/0: \nx/0: last\n", b"x/0: e\n")


def test_what_was_shown_is_not_shown_again_when_a_stream_is_resumed() -> None:
    parts = pieces((OUT, 0, b"abc"), (OUT, 0, b"abcde"), (OUT, 3, b"de"), (OUT, 5, b"f"))
    assert printed("", parts) == (b"abcdef", b"")


def test_new_attempt_shows_its_output_from_the_start() -> None:
    out = io.BytesIO()
    printer = Printer("", out, io.BytesIO())
    printer.show(pieces((OUT, 0, b"first"))[0])
    printer.begin_attempt()
    printer.show(pieces((OUT, 0, b"second"))[0])
    assert out.getvalue() == b"firstsecond"


def test_result_ends_with_a_newline() -> None:
    out = io.BytesIO()
    Printer("", out, io.BytesIO()).show_result(b"5")
    assert out.getvalue() == b"5\n"


def test_label_is_the_id_of_a_single_task_else_name_and_index_among_its_name() -> None:
    framework = Framework(FrameworkInfo(FrameworkId("f")))
    tasks = [Task(framework, TaskId(number)) for number in (5, 6, 7)]
    for task, name in zip(tasks, ("a", "b", "b"), strict=True):
        task.name = name
    assert labels(tasks[:1]) == ["t5"]
    assert labels(tasks) == ["a/0", "b/0", "b/1"]


class Scripted:
    """A framework without a session, whose tasks' updates and logs are laid out by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.framework = Framework(FrameworkInfo(FrameworkId("f")))
        self.framework.session = None  # type: ignore[assignment]
        self.tasks = [Task(self.framework, TaskId(n + 1)) for n in range(count)]
        for task in self.tasks:
            task.name = "x"
        self.logs: dict[tuple[int, int], list[LogPiece] | RequestFailed] = {}
        self.killed: list[Task] = []
        monkeypatch.setattr(watching, "read_logs", self.read_logs)
        monkeypatch.setattr(self.framework, "kill", self.kill)

    async def read_logs(
        self, session: object, task_id: int, stream: str, **options: Any
    ) -> AsyncIterator[LogPiece]:
        answer = self.logs.get((task_id, options["attempt"]), [])
        if isinstance(answer, RequestFailed):
            raise answer
        for piece in answer:
            yield piece

    async def kill(self, tasks: Sequence[Task]) -> None:
        self.killed += tasks
        for task in tasks:
            task.on_update(TaskUpdate(task.id, 99, TaskState.KILLED, "killed-by-request", signal=15))

    def move(self, number: int, version: int, state: TaskState, **fields: Any) -> None:
        if "agent_id" in fields:
            fields["agent_name"] = fields["agent_id"].replace("a", "gw")
        self.tasks[number].on_update(TaskUpdate(self.tasks[number].id, version, state, **fields))

    async def watch(self, *, output: bool = True, patience_s: float = 30.0) -> int:
        with anyio.fail_after(patience_s):
            return await Watch(Settings(), self.framework, self.tasks, output=output).run()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, operator: Any) -> Any:
    """The operator that notes are asked of."""
    monkeypatch.setattr(watching, "connect_operator", _connected_to(operator))
    return operator


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, asked: Any) -> Scripted:
    return Scripted(monkeypatch)


async def test_output_of_a_short_task_and_its_exit_code(
    scripted: Scripted, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scripted.logs[1, 1] = pieces((OUT, 0, b"hello\n"), (ERR, 0, b"warn\n"))
    scripted.move(0, 1, TaskState.FAILED, reason="exit-code", agent_id="pi4", attempt=1, exit_code=3)
    assert await scripted.watch() == 3
    captured = capfdbinary.readouterr()
    assert captured.out == b"hello\n"
    assert captured.err == b"t1 placed on pi4\nwarn\n"


async def test_second_attempt_is_followed_too(
    scripted: Scripted, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scripted.logs[1, 1] = pieces((OUT, 0, b"one\n"))
    scripted.logs[1, 2] = pieces((OUT, 0, b"two\n"))

    async def life() -> None:
        steps = [
            (TaskState.RUNNING, 1),
            (TaskState.PENDING, 1),
            (TaskState.STAGING, 2),
            (TaskState.FINISHED, 2),
        ]
        for version, (state, attempt) in enumerate(steps, 1):
            await anyio.wait_all_tasks_blocked()
            scripted.move(
                0, version, state, reason="agent-removed", agent_id=f"a{attempt}", attempt=attempt
            )

    async with anyio.create_task_group() as group:
        group.start_soon(life)
        assert await scripted.watch() == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"one\ntwo\n"
    notes = captured.err.decode().splitlines()
    assert notes[0] == "t1 placed on gw1"
    assert notes[1] == "t1 waits for a place again (agent-removed)"
    assert notes[2] == "t1 placed on gw2 (attempt 2)"


async def test_log_that_was_away_is_tried_again_with_the_next_change(
    scripted: Scripted, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scripted.logs[1, 1] = RequestFailed("agent-away", "its agent is away")
    scripted.move(0, 1, TaskState.RUNNING, agent_id="a", attempt=1)

    async def life() -> None:
        await anyio.wait_all_tasks_blocked()
        scripted.logs[1, 1] = pieces((OUT, 0, b"late\n"))
        scripted.move(0, 2, TaskState.FINISHED, agent_id="a", attempt=1)

    async with anyio.create_task_group() as group:
        group.start_soon(life)
        assert await scripted.watch() == 0
    assert capfdbinary.readouterr().out == b"late\n"


async def test_output_that_comes_slowly_is_waited_for_while_it_comes(
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    pass_time: Callable[[float], None],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    async def thin_link(*_: object, **__: object) -> AsyncIterator[LogPiece]:
        for offset in range(4):
            await anyio.wait_all_tasks_blocked()
            pass_time(0.7 * watching.DRAIN_OUTPUT_S)
            yield LogPiece.make(b"x", OUT, offset, 0)
        await anyio.wait_all_tasks_blocked()
        pass_time(1.1 * watching.DRAIN_OUTPUT_S)
        await anyio.sleep_forever()

    monkeypatch.setattr(watching, "read_logs", thin_link)
    scripted.move(0, 1, TaskState.FINISHED, agent_id="a", attempt=1)
    await scripted.watch(patience_s=1000)
    captured = capfdbinary.readouterr()
    assert captured.out.rstrip() == b"xxxx"
    assert b"the rest of its output has not come" in captured.err


async def test_output_of_those_that_wait_for_their_turn_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
    asked: Any,
    pass_time: Callable[[float], None],
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr(watching, "FOLLOWED_TASKS", 1)
    scripted = Scripted(monkeypatch, count=2)
    scripted.logs[1, 1] = pieces((OUT, 0, b"one\n"))
    scripted.logs[2, 1] = pieces((OUT, 0, b"two\n"))
    scripted.move(0, 1, TaskState.RUNNING, attempt=1, agent_id="a")
    scripted.move(1, 1, TaskState.FINISHED, attempt=1, agent_id="a")

    async def end() -> None:
        await anyio.wait_all_tasks_blocked()
        pass_time(2 * watching.DRAIN_OUTPUT_S)
        await anyio.wait_all_tasks_blocked()
        scripted.move(0, 2, TaskState.FINISHED, attempt=1, agent_id="a")

    async with anyio.create_task_group() as group:
        group.start_soon(end)
        assert await scripted.watch(patience_s=1000) == 0
    assert sorted(capfdbinary.readouterr().out.splitlines()) == [b"x/0: one", b"x/1: two"]


async def test_many_tasks_prefix_their_lines_and_the_first_failure_counts(
    monkeypatch: pytest.MonkeyPatch, asked: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scripted = Scripted(monkeypatch, count=3)
    scripted.logs[3, 1] = pieces((OUT, 0, b"hi"))
    scripted.move(2, 1, TaskState.FAILED, attempt=1, exit_code=7, reason="exit-code")
    scripted.move(1, 1, TaskState.FAILED, attempt=1, exit_code=5, reason="exit-code")
    scripted.move(0, 1, TaskState.FINISHED, attempt=1, exit_code=0, result=b"42")
    assert await scripted.watch() == 5
    captured = capfdbinary.readouterr()
    assert sorted(captured.out.splitlines()) == [b"x/0: 42", b"x/2: hi"]
    assert b"t2 (x) FAILED (exit-code)" in captured.err


async def test_first_interrupt_kills_the_tasks(scripted: Scripted) -> None:
    scripted.move(0, 1, TaskState.RUNNING, agent_id="a", attempt=1)

    async def interrupt() -> None:
        await anyio.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGINT)

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        assert await scripted.watch() == 130
    assert scripted.killed == scripted.tasks


async def test_second_interrupt_leaves_at_once(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    async def kill_that_waits(tasks: Sequence[Task]) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(scripted.framework, "kill", kill_that_waits)

    async def interrupt() -> None:
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        assert await scripted.watch() == 130


async def test_waiting_task_says_why(
    scripted: Scripted,
    asked: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(watching, "EXPLAIN_AFTER_S", 0.01)
    monkeypatch.setattr(watching, "EXPLAIN_EVERY_S", 0.01)

    def explain(args: dict[str, Any]) -> list[dict[str, Any]]:
        if len(asked.requests) > 4:
            scripted.move(0, 1, TaskState.KILLED)
        return [{"state": "PENDING", "summary": "no agent has registered yet"}]

    asked.rows["explain"] = explain
    assert await scripted.watch() == 1
    assert capfd.readouterr().err.splitlines()[0] == "t1 waits: no agent has registered yet"


def _connected_to(operator: Any) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def connect(*args: Any, **options: Any) -> AsyncIterator[Any]:
        yield operator

    return connect


async def test_without_an_operator_notes_are_short(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise TransportError("nobody answers")

    monkeypatch.setattr(watching, "connect_operator", refuse)
    scripted.move(0, 1, TaskState.KILLING, agent_id="a1", attempt=1)

    async def end() -> None:
        await anyio.wait_all_tasks_blocked()
        scripted.move(0, 2, TaskState.FINISHED, agent_id="a1", attempt=1)

    async with anyio.create_task_group() as group:
        group.start_soon(end)
        assert await scripted.watch() == 0
    assert capfd.readouterr().err.splitlines() == [
        "notes will be short: nobody answers",
        "t1 placed on gw1",
    ]


async def test_tasks_are_killed_when_nobody_reads_their_output(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(self: Printer, piece: LogPiece) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Printer, "show", show)
    scripted.logs[1, 1] = pieces((OUT, 0, b"x"))
    scripted.move(0, 1, TaskState.RUNNING, agent_id="a1", attempt=1)
    with pytest.raises(ExceptionGroup):
        await scripted.watch()
    assert scripted.killed == scripted.tasks
