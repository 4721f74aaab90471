"""Waiting for tasks at a terminal: their output as it comes, why they wait, what becomes of Ctrl-C.

Output goes to stdout and stderr as the tasks wrote it; everything else goes to stderr as notes.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import anyio
from anyio.abc import TaskGroup

from edgerm_core.cli.output import note
from edgerm_core.cli.settings import Settings
from edgerm_core.client.framework import Framework
from edgerm_core.client.logs import LogPiece, read_logs
from edgerm_core.client.operator import Operator, connect_operator
from edgerm_core.client.tasks import Task
from edgerm_core.errors import EdgermError, RequestFailed
from edgerm_core.ids import format_task_id
from edgerm_core.messages import LogStream, RefusalCode, TaskUpdate
from edgerm_core.tasks import TaskState

EXPLAIN_AFTER_S: Final = 3.0
"""A task that waits longer than this for its place gets a note that says why."""

EXPLAIN_EVERY_S: Final = 10.0
"""And another one this often, if the answer has changed."""

DRAIN_OUTPUT_S: Final = 10.0
"""How long nothing of an ended task's output may arrive before its rest is given up."""

FOLLOWED_TASKS: Final = 16
"""Tasks whose output is followed at once; that of the others comes when one of these has ended. An
agent follows `MAX_LOG_STREAMS` streams for everybody, and each task has two."""

KILL_S: Final = 5.0
"""How long telling the master to end the tasks may take when this program ends on an error."""

LOOKUP_S: Final = 3.0
"""How long a question whose answer only makes a note nicer may take."""

INTERRUPTED: Final = 130

_RAN: Final = frozenset(
    {TaskState.RUNNING, TaskState.KILLING, TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED}
)
"""States in which an attempt may have an output."""


def exit_code(end: TaskUpdate) -> int:
    """Return what a shell would say of the end: the task's exit code, 128 + signal, or 0 or 1."""
    if end.exit_code is not None and (end.exit_code or end.state is TaskState.FINISHED):
        return end.exit_code
    if end.signal is not None:
        return 128 + end.signal
    return 0 if end.state is TaskState.FINISHED else 1


def describe_end(label: str, end: TaskUpdate) -> str:
    """Return one sentence on an end that is no success, or nothing where the exit code says it all."""
    if end.state is TaskState.FINISHED:
        return ""
    first = end.message.splitlines()[0] if end.message else ""
    detail = f": {first}" if first else ""
    return f"{label} {end.state.name} ({end.reason}){detail}"


def labels(tasks: Sequence[Task]) -> list[str]:
    """Return what notes and lines call each task: its id if it is alone, else its name and index."""
    if len(tasks) == 1:
        return [format_task_id(tasks[0].id)]
    count: dict[str, int] = {}
    found: list[str] = []
    for task in tasks:
        index = count[task.name] = count.get(task.name, -1) + 1
        found.append(f"{task.name}/{index}")
    return found


class Printer:
    """Writes the pieces of one task's output, each byte once; with a prefix, in whole lines.

    Parameters:
        prefix: put in front of each line; empty: bytes pass as they are.
        stdout, stderr: where to; binary.
    """

    def __init__(self, prefix: str, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self._prefix = prefix.encode()
        self._files = {LogStream.STDOUT: stdout, LogStream.STDERR: stderr}
        self._partial = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
        self._shown = {LogStream.STDOUT: 0, LogStream.STDERR: 0}

    def begin_attempt(self) -> None:
        """A new attempt writes its output from the first byte again."""
        self.end()
        self._shown = dict.fromkeys(self._shown, 0)

    def show(self, piece: LogPiece) -> None:
        """Write what is new in the piece."""
        shown = self._shown[piece.stream]
        fresh = bytes(piece)[max(0, shown - piece.offset) :]
        self._shown[piece.stream] = max(shown, piece.offset + len(piece))
        if fresh:
            self._write(piece.stream, fresh)

    def show_result(self, result: bytes) -> None:
        """Write a result value to stdout, with a newline behind it."""
        self.end()
        self._write(LogStream.STDOUT, result if result.endswith(b"\n") else result + b"\n")

    def end(self) -> None:
        """Write the last line of each stream, should it lack its newline."""
        for stream, partial in self._partial.items():
            if partial:
                self._write(stream, b"\n")

    def _write(self, stream: LogStream, data: bytes) -> None:
        file = self._files[stream]
        if self._prefix:
            *lines, self._partial[stream] = (self._partial[stream] + data).split(b"\n")
            data = b"".join(self._prefix + line + b"\n" for line in lines)
        file.write(data)
        file.flush()


class _Draining:
    """The rest of a task's output after its end: given up when nothing of it comes for a while.

    It is waited for as long as others are followed, and as long as a thin link takes to carry it.
    """

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._ended = False
        self._followed = False

    def begin(self) -> None:
        """The task has ended."""
        self._ended = True
        self._count()

    def progress(self) -> None:
        """It is its turn to be followed, or something has come."""
        self._followed = True
        self._count()

    def _count(self) -> None:
        if self._ended and self._followed:
            self._scope.deadline = anyio.current_time() + DRAIN_OUTPUT_S


class Watch:
    """Follows tasks of one framework until all have ended.

    Parameters:
        output: whether to show what the tasks print.
    """

    def __init__(
        self, settings: Settings, framework: Framework, tasks: Sequence[Task], *, output: bool
    ) -> None:
        self._settings = settings
        self._framework = framework
        self._tasks = tasks
        self._output = output
        self._interrupted = False
        self._operator: Operator | None = None
        self._operator_known = anyio.Event()
        self._followers = anyio.CapacityLimiter(FOLLOWED_TASKS)

    async def run(self) -> int:
        """Return the exit code: the first in order of the tasks that is not 0, or 130 after Ctrl-C.

        The first Ctrl-C (or SIGTERM, SIGHUP) kills the tasks, a second one leaves at once.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._take_signals, group)
                group.start_soon(self._keep_operator)
                group.start_soon(self._explain_waiting)
                async with anyio.create_task_group() as tasks:
                    for task, label in zip(self._tasks, labels(self._tasks), strict=True):
                        tasks.start_soon(self._watch, task, label)
                group.cancel_scope.cancel()
        except BaseException:
            # Nobody reads the output any more, such as behind `| head`.
            with anyio.move_on_after(KILL_S, shield=True):
                await self._kill([task for task in self._tasks if not task.state.terminal])
            raise
        if self._interrupted:
            return INTERRUPTED
        return next((code for code in (exit_code(task.update) for task in self._tasks) if code), 0)

    # --- one task -----------------------------------------------------------------------------

    async def _watch(self, task: Task, label: str) -> None:
        many = len(self._tasks) > 1
        printer = Printer(f"{label}: " if many else "", sys.stdout.buffer, sys.stderr.buffer)
        async with anyio.create_task_group() as group:
            draining = _Draining(group.cancel_scope)
            if self._output:
                group.start_soon(self._follow, task, label, printer, draining)
            await self._narrate(task, label)
            draining.begin()
        if self._output and group.cancel_scope.cancelled_caught:
            note(
                f"{label}: the rest of its output has not come; try: edgerm logs {format_task_id(task.id)}"
            )
        printer.end()
        if self._output and task.update.result is not None:
            printer.show_result(task.update.result)
        sentence = describe_end(f"{format_task_id(task.id)} ({task.name})", task.update)
        if sentence and (many or not self._output or not task.update.exit_code):
            note(sentence)

    async def _narrate(self, task: Task, label: str) -> None:
        """Say where the task goes and what keeps it, until it has ended."""
        placed: tuple[str, int] = ("", 0)
        state = TaskState.PENDING
        async for update in task.changes():
            # Also where the end is all that has come: who was held up learns only how a task stands now.
            was_there = update.state.on_agent or update.state.terminal
            if update.agent_id and was_there and (update.agent_id, update.attempt) != placed:
                placed = (update.agent_id, update.attempt)
                again = f" (attempt {update.attempt})" if update.attempt > 1 else ""
                note(f"{label} placed on {update.agent_name or update.agent_id}{again}")
            if update.state is TaskState.UNREACHABLE and state is not update.state:
                note(f"{label} is UNREACHABLE: {update.message or 'its agent is silent'}")
            if update.state is TaskState.PENDING and state is not update.state:
                note(f"{label} waits for a place again ({update.reason}): {update.message}".rstrip(" :"))
            state = update.state

    async def _follow(self, task: Task, label: str, printer: Printer, draining: _Draining) -> None:
        async with self._followers:
            draining.progress()
            followed = 0
            async for update in task.changes():
                if update.attempt == 0 or update.attempt == followed or update.state not in _RAN:
                    continue
                if update.attempt != followed:
                    printer.begin_attempt()
                try:
                    async for piece in read_logs(
                        self._framework.session, task.id, "both", follow=True, attempt=update.attempt
                    ):
                        if piece.missed_bytes:
                            note(f"{label}: {piece.missed_bytes} bytes of its output are no longer kept")
                        printer.show(piece)
                        draining.progress()
                    followed = update.attempt
                except RequestFailed as error:
                    # Its agent may be away: tried again with the task's next change.
                    if update.state.terminal and error.code != RefusalCode.NOT_FOUND:
                        note(f"{label}: {error}")

    # --- all of them --------------------------------------------------------------------------

    async def _explain_waiting(self) -> None:
        """Say why the first task that waits does so, when it has waited for a while."""
        said = ""
        delay_s = EXPLAIN_AFTER_S
        while True:
            await anyio.sleep(delay_s)
            delay_s = EXPLAIN_EVERY_S
            waiting = [task for task in self._tasks if task.state is TaskState.PENDING]
            if not waiting:
                continue
            sentence = await self._explain(waiting[0])
            if sentence and sentence != said:
                said = sentence
                more = f" (and {len(waiting) - 1} more wait)" if len(waiting) > 1 else ""
                note(f"{format_task_id(waiting[0].id)} waits{more}: {sentence}")

    async def _explain(self, task: Task) -> str:
        rows = await self._ask("explain", task)
        return str(rows[0]["summary"]) if rows and rows[0]["state"] == TaskState.PENDING.name else ""

    async def _keep_operator(self) -> None:
        """Hold the second session, as an operator, that notes ask their questions on."""
        try:
            async with connect_operator(
                self._settings.master_url,
                insecure=self._settings.insecure,
                connect_timeout_s=LOOKUP_S,
                plugins=self._settings.transports,
            ) as operator:
                self._operator = operator
                self._operator_known.set()
                await anyio.sleep_forever()
        except EdgermError as error:
            note(f"notes will be short: {error}")
        finally:
            self._operator_known.set()

    async def _ask(self, kind: str, task: Task) -> Sequence[Mapping[str, Any]]:
        """Return the rows about a task; none where the master does not answer soon."""
        with anyio.move_on_after(LOOKUP_S):
            await self._operator_known.wait()
            if self._operator is not None:
                try:
                    return (await self._operator.query(kind, task=format_task_id(task.id))).rows
                except EdgermError:
                    pass
        return ()

    async def _take_signals(self, group: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                if self._interrupted:
                    note("leaving; the tasks may go on for a while")
                    group.cancel_scope.cancel()
                    return
                self._interrupted = True
                live = [task for task in self._tasks if not task.state.terminal]
                note(f"ending {len(live)} task{'s' * (len(live) != 1)}; once more to leave at once")
                group.start_soon(self._kill, live)

    async def _kill(self, tasks: Sequence[Task]) -> None:
        try:
            await self._framework.kill(tasks)
        except EdgermError as error:
            note(f"the tasks could not be killed: {error}")
