"""A connection that does what a test says, and notes what it was asked."""

from __future__ import annotations

import anyio

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection


class Line(Connection):
    """One end.

    Attributes:
        room: how many frames it takes without waiting; `send` waits while it is 0.
        sent: in order.
        fails: what sending raises.
        closed: the reason, once it is closed.
        writers: how often somebody began to `send`.
    """

    peer, push, identity, local = "line", True, None, True

    def __init__(self, room: int = 0, max_message_bytes: int = 1024) -> None:
        self.room = room
        self.max_message_bytes = max_message_bytes
        self.sent: list[bytes] = []
        self.fails: Exception | None = None
        self.closed: str | None = None
        self.sends = 0
        self._changed = anyio.Event()

    def send_nowait(self, data: bytes) -> bool:
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        if self.fails is not None:
            raise self.fails
        if not self.room:
            return False
        self.room -= 1
        self.sent.append(data)
        return True

    async def send(self, data: bytes) -> None:
        self.sends += 1
        while not self.send_nowait(data):
            await self._changed.wait()

    async def receive(self) -> bytes:
        raise NotImplementedError

    async def close(self, reason: str = "") -> None:
        self.closed = reason if self.closed is None else self.closed
        self._change()

    def make_room(self, frames: int) -> None:
        """Let it take more."""
        self.room += frames
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class SlowLine(Line):
    """One that never sends without waiting."""

    def send_nowait(self, data: bytes) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        self.sends += 1
        while not super().send_nowait(data):
            await self._changed.wait()
