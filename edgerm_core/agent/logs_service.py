"""Answers LogGet from the rings on disk, for tasks that run and for those that ended a while ago."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from edgerm_core.agent.sandbox import Sandboxes
from edgerm_core.ids import format_task_id
from edgerm_core.limits import LOG_CHUNK_BYTES, LOG_POLL_S, MAX_LOG_STREAMS
from edgerm_core.logs import STDERR, STDOUT, LogReader
from edgerm_core.messages import LogData, LogGet, LogStream

_FILES: Final = {LogStream.STDOUT: STDOUT, LogStream.STDERR: STDERR}


class LogsService:
    """The log streams of one session; they end with it.

    Parameters:
        sandboxes: where the rings are.
        tasks: runs the streams; ends when the session does.
        send: sends a piece; waits while the connection is slow.
    """

    def __init__(
        self,
        sandboxes: Sandboxes,
        tasks: anyio.abc.TaskGroup,
        send: Callable[[LogData], Awaitable[None]],
    ) -> None:
        self._sandboxes = sandboxes
        self._tasks = tasks
        self._send = send
        self._streams: dict[int, anyio.CancelScope] = {}

    def on_get(self, get: LogGet) -> None:
        """Begin a stream, or cancel one."""
        running = self._streams.get(get.request_id)
        if get.cancel:
            if running is not None:
                running.cancel()
            return
        if running is not None:
            return  # A repeated request changes nothing.
        if len(self._streams) >= MAX_LOG_STREAMS:
            self._tasks.start_soon(self._refuse, get, f"{MAX_LOG_STREAMS} logs are being read already")
            return
        scope = self._streams[get.request_id] = anyio.CancelScope()
        self._tasks.start_soon(self._stream, get, scope)

    async def _refuse(self, get: LogGet, problem: str) -> None:
        await self._send(LogData(get.request_id, 0, end=True, problem=problem))

    async def _stream(self, get: LogGet, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._read(get)
        finally:
            del self._streams[get.request_id]

    async def _read(self, get: LogGet) -> None:
        directory = self._sandboxes.logs(get.task_id, get.attempt)
        if directory is None:
            await self._refuse(get, f"no log of {format_task_id(get.task_id)} is kept on this agent")
            return
        reader = LogReader(directory, _FILES[get.stream])
        first, end = await anyio.to_thread.run_sync(reader.bounds)
        offset = get.offset if get.offset >= 0 else max(first, end + get.offset)
        while True:
            # Looked at before reading: what a task wrote before it ended is read once more.
            live = self._sandboxes.is_live(get.task_id, get.attempt)
            length = LOG_CHUNK_BYTES if get.follow else max(0, min(LOG_CHUNK_BYTES, end - offset))
            start, data = await anyio.to_thread.run_sync(reader.read, offset, length)
            if data:
                await self._send(LogData(get.request_id, start, data))
                offset = start + len(data)
            elif get.follow and live:
                await anyio.sleep(LOG_POLL_S)
            else:
                await self._send(LogData(get.request_id, offset, end=True))
                return
