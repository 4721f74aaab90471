"""What the master keeps of one connection: how much of it is being handled, and what waits to be sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio

from edgerm_core.ids import SessionId
from edgerm_core.interfaces import Connection
from edgerm_core.limits import MAX_BATCH_MESSAGES, SESSION_OUTBOX_BYTES
from edgerm_core.master.notice import Notice
from edgerm_core.master.relay import Relays


class SessionPort:
    """One connection: its inbox accounting and its outbox.

    Parameters:
        on_change: told when there is something to send, or the connection is to be closed.
    """

    __slots__ = (
        "_on_change",
        "closing",
        "connection",
        "direct",
        "drained",
        "frames_waiting",
        "id",
        "max_message_bytes",
        "outbox",
        "outbox_bytes",
        "queued",
        "relays",
        "room",
        "wake_writer",
        "writer",
    )

    def __init__(
        self, session_id: SessionId, connection: Connection, on_change: Callable[[SessionPort], None]
    ) -> None:
        self.id = session_id
        self.connection = connection
        self._on_change = on_change
        #: What the transport takes, or less where the peer has said so.
        self.max_message_bytes = connection.max_message_bytes
        #: The channels of a gateway.
        self.relays: Relays | None = None
        #: Frames handed to the engine and not yet handled.
        self.frames_waiting = 0
        self.room = Notice()
        self.outbox: list[bytes] = []  # A deque costs each of many sessions half a KiB more.
        self.outbox_bytes = 0
        #: Whether the sender is about to look at it.
        self.queued = False
        #: Whether its transport has sent something without waiting.
        self.direct = False
        #: The task that sends where that needs waiting; None: there is none.
        self.writer: anyio.CancelScope | None = None
        self.wake_writer = Notice()
        #: Given when something has left, and when the writer has ended.
        self.drained = Notice()
        #: Set when no more is to be sent: the reason.
        self.closing: str | None = None

    async def wait_room(self) -> None:
        """Wait until the engine has handled another of this session's frames."""
        await self.room.wait()

    async def wait_drained(self) -> None:
        """Wait until something of the outbox has left."""
        await self.drained.wait()

    def put(self, data: bytes) -> bool:
        """Queue one encoded message; return whether the outbox is still within its limit."""
        self.outbox.append(data)
        self.outbox_bytes += len(data)
        self._on_change(self)
        return self.outbox_bytes <= SESSION_OUTBOX_BYTES

    def close(self, reason: str) -> None:
        """Close the connection once what waits has been sent. Idempotent."""
        if self.closing is None:
            self.closing = reason
            self._on_change(self)

    def take_frame(self) -> bytes:
        """Return as many waiting messages as fit into one frame; at least one."""
        outbox = self.outbox
        count, size = 1, len(outbox[0])
        for piece in itertools.islice(outbox, 1, MAX_BATCH_MESSAGES):
            if size + len(piece) > self.max_message_bytes:
                break
            count += 1
            size += len(piece)
        frame = outbox[0] if count == 1 else b"".join(outbox[:count])
        del outbox[:count]
        self.outbox_bytes -= size
        self.drained.give()
        return frame

    def drop_waiting(self) -> None:
        """Forget what waits: it will not be sent any more."""
        self.outbox.clear()
        self.outbox_bytes = 0
        self.drained.give()
