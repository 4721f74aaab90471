"""Sessions of devices behind a gateway, carried inside the gateway's own.

To the rest of the master a channel is a connection like any other: it is served in the same way, and
what is wrong in one of its frames ends this one alone. All channels of a gateway share its connection,
and end with it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio
import anyio.lowlevel

from edgerm_core.codec import encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.interfaces import Connection
from edgerm_core.limits import (
    MAX_RELAY_CHANNELS,
    RELAY_ENVELOPE_BYTES,
    RELAY_OUTBOX_BYTES,
    SESSION_INBOX_FRAMES,
)
from edgerm_core.master.notice import Notice
from edgerm_core.messages import RelayClose, Relayed, RelayOpen


class Outlet(Protocol):
    """What all channels of a gateway share: the way out of its connection."""

    max_message_bytes: int
    outbox_bytes: int

    def put(self, data: bytes) -> bool:
        """Queue one encoded message."""
        ...

    async def wait_drained(self) -> None:
        """Wait until something of what is queued has left."""
        ...


class RelayConnection(Connection):
    """One channel. Made by `Relays`.

    Attributes:
        via: the gateway.
        opened: what the gateway said about it.
        session_id: of the session it carries, once that has begun.
    """

    push = True
    identity = None
    local = False

    def __init__(self, outlet: Outlet, via: AgentId, opened: RelayOpen) -> None:
        self._outlet = outlet
        self.via = via
        self.opened = opened
        self.session_id: SessionId | None = None
        self.peer = opened.peer or f"channel {opened.channel}"
        largest = outlet.max_message_bytes - RELAY_ENVELOPE_BYTES
        self.max_message_bytes = min(opened.max_message_bytes or largest, largest)
        self._inbox: collections.deque[bytes] = collections.deque()
        self._changed = anyio.Event()
        #: Why it ended; empty: it has not.
        self.ended = ""

    async def send(self, data: bytes) -> None:
        """See `Connection.send`. Waits while the gateway's connection is behind."""
        if len(data) > self.max_message_bytes:
            raise ValueError(f"{len(data)} bytes are too many for {self.peer}")
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self.ended and self._outlet.outbox_bytes > RELAY_OUTBOX_BYTES:
            await self._outlet.wait_drained()
        if self.ended:
            raise ConnectionClosed(self.ended)
        self._outlet.put(encode(Relayed(self.opened.channel, data)))

    def send_nowait(self, data: bytes) -> bool:
        """See `Connection.send_nowait`."""
        if (
            self.ended
            or len(data) > self.max_message_bytes
            or self._outlet.outbox_bytes > RELAY_OUTBOX_BYTES
        ):
            return False
        self._outlet.put(encode(Relayed(self.opened.channel, data)))
        return True

    async def receive(self) -> bytes:
        """See `Connection.receive`."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox and not self.ended:
            await self._changed.wait()
        if not self._inbox:
            raise ConnectionClosed(self.ended)
        data = self._inbox.popleft()
        self._notify()
        return data

    async def close(self, reason: str = "") -> None:
        """See `Connection.close`."""
        if not self.ended:
            self._outlet.put(encode(RelayClose(self.opened.channel, reason)))
        self._inbox.clear()
        self.end(f"this side closed the channel: {reason}")

    async def deliver(self, data: bytes) -> None:
        """Take a frame from the gateway; waits while enough are waiting to be handled."""
        while not self.ended and len(self._inbox) >= SESSION_INBOX_FRAMES:
            await self._changed.wait()
        if not self.ended:
            self._inbox.append(data)
            self._notify()

    def end(self, reason: str) -> None:
        """The gateway, or its connection, has ended it. Idempotent."""
        self.ended = self.ended or reason
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Relays:
    """The channels of one gateway.

    Parameters:
        outlet: the gateway's connection.
        via: the gateway.
        serve: begins to carry a new channel; `forget` is called when that has ended.
    """

    def __init__(self, outlet: Outlet, via: AgentId, serve: Callable[[RelayConnection], None]) -> None:
        self._outlet = outlet
        self._via = via
        self._serve = serve
        self._channels: dict[int, RelayConnection] = {}
        self._gone = Notice()

    async def take(self, message: RelayOpen | Relayed | RelayClose) -> None:
        """Take a message of the gateway about one of its channels."""
        connection = self._channels.get(message.channel)
        if isinstance(message, RelayOpen):
            if connection is not None or len(self._channels) >= MAX_RELAY_CHANNELS:
                text = f"open already, or more than {MAX_RELAY_CHANNELS}"
                self._outlet.put(encode(RelayClose(message.channel, text)))
                return
            connection = self._channels[message.channel] = RelayConnection(self._outlet, self._via, message)
            self._serve(connection)
        elif connection is None:
            return  # It has been closed from here, which the gateway did not know yet.
        elif isinstance(message, Relayed):
            await connection.deliver(message.data)
        else:
            connection.end(f"its gateway closed the channel: {message.reason}")

    def heard(self, channels: Iterable[int]) -> tuple[SessionId, ...]:
        """Return the sessions of these channels."""
        found = (self._channels.get(channel) for channel in channels)
        return tuple(c.session_id for c in found if c is not None and c.session_id is not None)

    def forget(self, connection: RelayConnection) -> None:
        """The channel has been carried to its end."""
        if self._channels.get(connection.opened.channel) is connection:
            del self._channels[connection.opened.channel]
        self._gone.give()

    async def wait_gone(self) -> None:
        """Wait until every channel has been carried to its end."""
        while self._channels:
            await self._gone.wait()

    def end(self, reason: str) -> None:
        """The gateway's connection is gone, and all channels with it."""
        for connection in self._channels.values():
            connection.end(reason)
