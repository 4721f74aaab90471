"""Messages on their way out, joined into frames."""

from __future__ import annotations

from collections import deque

import anyio

from edgerm_core.errors import ConnectionClosed
from edgerm_core.limits import MAX_BATCH_MESSAGES

OUTBOX_BYTES = 4 << 20
"""Bytes waiting for a slow connection; beyond that `put` waits. Four frames of the largest size."""


class Outbox:
    """Encoded messages in order. Many writers, one reader that takes whole frames.

    Whatever waits when the reader comes leaves in one frame, so a thousand concurrent requests cost
    a few frames and not a thousand.
    """

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._taken = False
        self._closed: str | None = None
        self._changed = anyio.Event()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def post(self, message: bytes) -> None:
        """Add a small message, whatever the limit says; dropped if the connection has ended."""
        if self._closed is None:
            self._waiting.append(message)
            self._bytes += len(message)
            self._notify()

    async def put(self, message: bytes) -> None:
        """Add a message; waits while `OUTBOX_BYTES` are waiting.

        Raises:
            ConnectionClosed: if the connection has ended.
        """
        while self._bytes >= OUTBOX_BYTES and self._closed is None:
            await self._changed.wait()
        if self._closed is not None:
            raise ConnectionClosed(self._closed)
        self.post(message)

    async def take(self, max_bytes: int) -> bytes:
        """Return the next frame of at most `max_bytes` (or of one message, if that one is larger)."""
        self._taken = False
        self._notify()
        while not self._waiting:
            await self._changed.wait()
        parts = [self._waiting.popleft()]
        size = len(parts[0])
        while (
            self._waiting and len(parts) < MAX_BATCH_MESSAGES and size + len(self._waiting[0]) <= max_bytes
        ):
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        self._bytes -= size
        self._taken = True
        self._notify()
        return b"".join(parts)

    async def drained(self) -> None:
        """Wait until everything has been taken and the reader came back for more, or the end."""
        while (self._waiting or self._taken) and self._closed is None:
            await self._changed.wait()

    def close(self, reason: str) -> None:
        """Take no more; what waits is dropped. Idempotent."""
        if self._closed is None:
            self._closed = reason
            self._waiting.clear()
            self._bytes = 0
            self._notify()
