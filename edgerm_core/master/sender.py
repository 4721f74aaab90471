"""Sends what waits in outboxes, and closes connections that are to end.

What a transport takes without waiting is sent by one task for all connections. A connection whose sender
has to wait gets a task of its own, a writer. So most need none: a silent one costs little, and a slow one
holds up nobody else. A writer ends when its outbox is empty, except where the transport never sends
without waiting: there every message would begin another one.
"""

from __future__ import annotations

import collections
import logging
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from edgerm_core.errors import ConnectionClosed
from edgerm_core.master.port import SessionPort

log = logging.getLogger(__name__)

TURN_CONNECTIONS: Final = 256
"""So many are sent to before others get a turn of the event loop."""


class Sender:
    """Use `to_send` as the `on_change` of ports."""

    def __init__(self) -> None:
        self._unsent: collections.deque[SessionPort] = collections.deque()
        self._wake = anyio.Event()
        self._writers: TaskGroup

    def to_send(self, port: SessionPort) -> None:
        """Say that the port has something to send, or is to be closed. Idempotent."""
        if port.writer is not None:
            port.wake_writer.give()
        elif not port.queued:
            port.queued = True
            self._unsent.append(port)
            self._wake.set()

    async def run(self, writers: TaskGroup) -> None:
        """Send for ever.

        Parameters:
            writers: where writers run.
        """
        self._writers = writers
        while True:
            for _ in range(min(len(self._unsent), TURN_CONNECTIONS)):
                self._send_waiting(self._unsent.popleft())
            if self._unsent:
                await anyio.lowlevel.checkpoint()
            else:
                self._wake = anyio.Event()
                await self._wake.wait()

    async def flush(self, port: SessionPort) -> None:
        """Wait until a port that is being closed has said everything, and is closed. Cancel-safe."""
        while port.queued or port.writer is not None:
            await port.wait_drained()

    def _send_waiting(self, port: SessionPort) -> None:
        port.queued = False
        try:
            while port.outbox:
                frame = port.take_frame()
                if not port.connection.send_nowait(frame):
                    self._start_writer(port, frame)
                    return
                port.direct = True
        except ConnectionClosed:
            port.drop_waiting()  # Whoever reads from the connection finds that out as well.
        except Exception:
            self._on_failure(port)
        if port.closing is not None:
            self._start_writer(port, None)

    def _start_writer(self, port: SessionPort, frame: bytes | None) -> None:
        port.writer = anyio.CancelScope()
        self._writers.start_soon(self._write, port, port.writer, frame)

    async def _write(self, port: SessionPort, scope: anyio.CancelScope, frame: bytes | None) -> None:
        """Send `frame` and what waits; close the connection if that is wanted."""
        try:
            with scope:
                await self._write_waiting(port, frame)
                if port.closing is not None:
                    if port.relays is not None:
                        port.relays.end("its gateway's connection ended")
                    await port.connection.close(port.closing)
        finally:
            port.writer = None
            if scope.cancel_called:
                port.drop_waiting()
            elif port.outbox:
                self.to_send(port)
            port.drained.give()

    async def _write_waiting(self, port: SessionPort, frame: bytes | None) -> None:
        try:
            if frame is not None:
                await port.connection.send(frame)
            while True:
                while port.outbox:
                    await port.connection.send(port.take_frame())
                if port.closing is not None or port.direct:
                    return
                await port.wake_writer.wait()
        except ConnectionClosed:
            port.drop_waiting()
        except Exception:
            self._on_failure(port)

    def _on_failure(self, port: SessionPort) -> None:
        log.exception("sending to %s failed; its connection is closed", port.connection.peer)
        port.drop_waiting()
        port.closing = port.closing or "internal error"
