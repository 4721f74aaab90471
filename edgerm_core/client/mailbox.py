"""Where the answers to one request wait for whoever asked."""

from __future__ import annotations

from collections import deque

import anyio

from edgerm_core.errors import ConnectionClosed
from edgerm_core.messages import AnyMessage, LogData

MAILBOX_BYTES = 4 << 20
"""Log bytes waiting for one slow reader. Beyond that the log is asked for again from where the reader
stands; four rings of default size."""


class Mailbox:
    """Answers in the order in which they arrived. One reader.

    Attributes:
        overflowed: answers were dropped because the reader was too slow; all that came before the
            first dropped one can still be read.
    """

    def __init__(self) -> None:
        self.overflowed = False
        self._answers: deque[AnyMessage] = deque()
        self._bytes = 0
        self._lost: str | None = None
        self._arrived = anyio.Event()

    def put(self, answer: AnyMessage) -> None:
        """Add an answer, or drop it and note so where the reader is too far behind."""
        size = len(answer.data) if isinstance(answer, LogData) else 0
        if self.overflowed or self._bytes + size > MAILBOX_BYTES:
            self.overflowed = True
        else:
            self._answers.append(answer)
            self._bytes += size
        self._arrived.set()

    def lose(self, reason: str) -> None:
        """Say that nothing more will come. What has come can still be read."""
        self._lost = reason
        self._arrived.set()

    async def get(self) -> AnyMessage | None:
        """Return the next answer; None once the mailbox has overflowed and is empty. Cancel-safe.

        Raises:
            ConnectionClosed: if the connection ended and everything that came before was read.
        """
        while True:
            if self._answers:
                answer = self._answers.popleft()
                self._bytes -= len(answer.data) if isinstance(answer, LogData) else 0
                return answer
            if self._lost is not None:
                raise ConnectionClosed(self._lost)
            if self.overflowed:
                return None
            self._arrived = anyio.Event()
            await self._arrived.wait()
