"""The task as its framework holds it: where it stands, and how to wait for it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import anyio

from edgerm_core.client.blobs import BlobSource
from edgerm_core.client.logs import LogPiece, StreamName, read_logs
from edgerm_core.errors import EdgermError, TaskFailed
from edgerm_core.ids import TaskId, format_task_id
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskState

if TYPE_CHECKING:
    from edgerm_core.client.framework import Framework


NO_LOG_YET: Final = frozenset({TaskState.PENDING, TaskState.STAGING, TaskState.STARTING})
"""The agent may not have heard of the task in these states."""


class Task:
    """A submitted task. Framework makes it and keeps it up to date; any number of waiters.

    Waiting goes on while the connection to the master is lost: the session reconnects and asks where
    the task stands, so no end is missed. Wrap a wait in `anyio.fail_after` to bound it; all waits
    are cancel-safe.

    Attributes:
        id: given by the master.
        name: from its spec; empty for a task taken over from an earlier run of the framework.
        sources: the blobs it needs, should the master ask for them again.
        update: the latest word on it. Intermediate states may be skipped, the end never is.
    """

    def __init__(self, framework: Framework, task_id: TaskId) -> None:
        self.id = task_id
        self.name = ""
        self.sources: tuple[BlobSource, ...] = ()
        self.update = TaskUpdate(task_id, 0, TaskState.PENDING)
        self._framework = framework
        self._failure: EdgermError | None = None
        self._changed: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Task {self} {self.state.name}>"

    def __str__(self) -> str:
        return f"{format_task_id(self.id)} ({self.name})" if self.name else format_task_id(self.id)

    @property
    def state(self) -> TaskState:
        """Where it stands."""
        return self.update.state

    def on_update(self, update: TaskUpdate) -> None:
        """Take a newer word; an older or repeated one, or one after the end, is ignored."""
        if update.version > self.update.version and not self.state.terminal:
            self.update = update
            self._notify()

    def on_failure(self, error: EdgermError) -> None:
        """Learn that no further word will come."""
        if self._failure is None and not self.state.terminal:
            self._failure = error
            self._notify()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        if self._failure is not None:
            raise copy.copy(self._failure)
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    async def changes(self) -> AsyncIterator[TaskUpdate]:
        """Yield where the task stands now, then each change, and stop after the end.

        Keeps no queue: whoever comes back late gets the latest state, not those it missed.

        Raises:
            EdgermError: if the session is over for good (refused, or closed by this program).
        """
        seen = -1
        while True:
            while self.update.version <= seen:
                await self._change()
            update = self.update
            seen = update.version
            yield update
            if update.state.terminal:
                return

    async def wait(self) -> TaskUpdate:
        """Return the task's end, whichever it is.

        Raises:
            EdgermError: if the session is over for good first.
        """
        while not self.state.terminal:
            await self._change()
        return self.update

    async def wait_running(self) -> TaskUpdate:
        """Return once the task runs, or has run and FINISHED.

        Raises:
            TaskFailed: if it ended otherwise.
            EdgermError: if the session is over for good first.
        """
        while self.state is not TaskState.RUNNING and not self.state.terminal:
            await self._change()
        if self.state.terminal:
            self._check_finished()
        return self.update

    async def result(self) -> bytes:
        """Return the result value of the finished task; empty if it has none.

        Raises:
            TaskFailed: if it ended otherwise than FINISHED, with the reason and a sentence.
            EdgermError: if the session is over for good first.
        """
        await self.wait()
        self._check_finished()
        return self.update.result or b""

    def _check_finished(self) -> None:
        if self.state is not TaskState.FINISHED:
            raise TaskFailed(str(self), self.state.name, self.update.reason, self.update.message)

    async def kill(self, grace_s: float | None = None) -> None:
        """Ask for its end; `wait` tells when it came. Idempotent; an ended task is left alone.

        Parameters:
            grace_s: seconds between asking it to stop and stopping it; None: as its spec says.

        Raises:
            RequestFailed, TransportError: as `Session.request`.
        """
        if not self.state.terminal:
            await self._framework.kill([self], grace_s)

    async def logs(
        self, stream: StreamName = "stdout", *, follow: bool = False, tail_bytes: int | None = None
    ) -> AsyncIterator[LogPiece]:
        """Yield its log; see `logs.read_logs`. The attempt that is the latest when it starts.

        With `follow` a task that does not run yet is waited for.

        Raises:
            RequestFailed: if there is no log, or its agent is away.
        """
        if follow:
            while self.state in NO_LOG_YET:
                await self._change()
        async for piece in read_logs(
            self._framework.session,
            self.id,
            stream,
            follow=follow,
            tail_bytes=tail_bytes,
            attempt=self.update.attempt,
        ):
            yield piece
