"""TCP connections that no session lives on: bounded in number and in time."""

from __future__ import annotations

import asyncio

from edgerm_transport_coap.config import STRANGER_S, STRANGERS


class Strangers:
    """Cuts connections that do not come to the point. One timer for all: each has the same time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        #: Since when; the oldest comes first.
        self._since: dict[asyncio.WriteTransport, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, connection: asyncio.WriteTransport) -> None:
        """Cut it in STRANGER_S, or sooner if there are too many younger ones."""
        if self._closed:
            return
        self._since[connection] = self._loop.time()
        if len(self._since) > STRANGERS:
            self._cut(next(iter(self._since)))
        if self._timer is None:
            self._timer = self._loop.call_later(STRANGER_S, self._look)

    def discard(self, connection: asyncio.WriteTransport) -> None:
        """It is none any more, or has ended. Idempotent."""
        self._since.pop(connection, None)

    def close(self) -> None:
        """Cut no more. Idempotent."""
        self._closed = True
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        due = self._loop.time() - STRANGER_S
        for connection, since in list(self._since.items()):
            if since > due:
                self._timer = self._loop.call_at(since + STRANGER_S, self._look)
                return
            self._cut(connection)

    def _cut(self, connection: asyncio.WriteTransport) -> None:
        del self._since[connection]
        connection.abort()
