"""`memory://name`: connections inside one process and one event loop, for tests, demos and embedding.

The transport with the fewest surprises: no sockets, no copies, but the same back-pressure, limits and
endings as every other one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

import anyio

from edgerm_core import limits
from edgerm_core.errors import ConfigError, ConnectionClosed, TransportError
from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Connection, Listener, Provider, Transport

log = logging.getLogger(__name__)

PIPE_MESSAGES: Final = limits.SESSION_INBOX_FRAMES
"""Messages on their way in one direction; the next `send` waits."""

_listeners: dict[str, MemoryListener] = {}
"""Who listens in this process, by name."""


async def _checkpoint_if_cancelled() -> None:
    # Imported here: `edgerm --help` loads this plugin too, and needs no event loop.
    from anyio import lowlevel

    await lowlevel.checkpoint_if_cancelled()


class _Pipe:
    """One direction of a connection: a short queue that one side fills and the other one empties."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self._changed = anyio.Event()

    def notify(self) -> None:
        """Wake whoever waits for the queue or for the end of the connection."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        await self._changed.wait()


class MemoryConnection(Connection):
    """One end of a connection. Made in pairs by `connect`."""

    push = True
    identity = None
    local = True

    def __init__(self, peer: str, inward: _Pipe, outward: _Pipe, max_message_bytes: int) -> None:
        self.peer = peer
        self.max_message_bytes = max_message_bytes
        self._inward = inward
        self._outward = outward
        self._closed_here = False
        self._ended = ""
        self._other: MemoryConnection | None = None

    def join(self, other: MemoryConnection) -> None:
        """Make `other` the far end of this one, and this one the far end of `other`."""
        self._other = other
        other._other = self

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        if len(data) > self.max_message_bytes:
            raise ValueError(
                f"a message of {len(data)} bytes is too large for {self.peer}, "
                f"which takes {self.max_message_bytes}"
            )
        # Where both ends run in step, neither may ever be found waiting by a cancellation.
        await _checkpoint_if_cancelled()
        while not self._ended and len(self._outward.messages) >= PIPE_MESSAGES:
            await self._outward.wait()
        if self._ended:
            raise ConnectionClosed(self._ended)
        self._outward.messages.append(data)
        self._outward.notify()

    async def receive(self) -> bytes:
        """See `Connection.receive`. What the peer sent before it closed still comes."""
        await _checkpoint_if_cancelled()
        while not self._inward.messages and not self._ended:
            await self._inward.wait()
        if self._closed_here or not self._inward.messages:
            raise ConnectionClosed(self._ended)
        data = self._inward.messages.popleft()
        self._inward.notify()
        if len(data) > self.max_message_bytes:
            problem = (
                f"{self.peer} sent a message of {len(data)} bytes, "
                f"but this side takes {self.max_message_bytes}"
            )
            self._end(problem, "the message is larger than the peer takes")
            raise ConnectionClosed(problem)
        return data

    async def close(self, reason: str = "") -> None:
        """See `Connection.close`."""
        self._end(
            f"this side closed the connection to {self.peer}" + (f": {reason}" if reason else ""), reason
        )

    def _end(self, here: str, reason: str) -> None:
        """End both sides: `here` is this side's sentence, `reason` is what the peer is told."""
        self._closed_here = True
        self._inward.messages.clear()
        self._ended = self._ended or here
        if self._other is not None:
            other = self._other
            other._ended = other._ended or f"{other.peer} closed the connection" + (
                f": {reason}" if reason else ""
            )
        self._inward.notify()
        self._outward.notify()


class MemoryListener(Listener):
    """A name in this process where peers connect."""

    def __init__(self, name: str, max_message_bytes: int) -> None:
        self.url = f"memory://{name}"
        self._name = name
        self._max_message_bytes = max_message_bytes
        self._waiting: deque[MemoryConnection] = deque()
        self._open: set[MemoryConnection] = set()
        self._closed = False
        self._changed = anyio.Event()
        self._count = 0

    def accept(self, max_message_bytes: int) -> MemoryConnection:
        """Return the dialing end of a new connection, whose other end waits for `serve`.

        Raises:
            TransportError: if the listener has as many connections as it takes.
        """
        if len(self._open) + len(self._waiting) >= limits.MAX_CONNECTIONS:
            raise TransportError(f"{self.url} has {limits.MAX_CONNECTIONS} connections and takes no more")
        self._count += 1
        there, back = _Pipe(), _Pipe()
        dialing = MemoryConnection(self.url, back, there, max_message_bytes)
        listening = MemoryConnection(f"{self.url}#{self._count}", there, back, self._max_message_bytes)
        dialing.join(listening)
        self._waiting.append(listening)
        self._notify()
        return dialing

    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        """See `Listener.serve`. After `close` it returns when the last handler has."""
        async with anyio.create_task_group() as handlers:
            while not self._closed:
                while self._waiting:
                    connection = self._waiting.popleft()
                    self._open.add(connection)
                    handlers.start_soon(self._run, handler, connection)
                await self._changed.wait()

    async def _run(
        self, handler: Callable[[Connection], Awaitable[None]], connection: MemoryConnection
    ) -> None:
        reason = ""
        try:
            await handler(connection)
        except Exception:
            log.exception("the handler of %s failed; its connection is closed", connection.peer)
            reason = "internal error"
        finally:
            await connection.close(reason)
            self._open.discard(connection)

    async def close(self) -> None:
        """See `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        del _listeners[self._name]
        for connection in [*self._open, *self._waiting]:
            await connection.close("the listener closed")
        self._waiting.clear()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class MemoryTransport(Transport):
    """Speaks `memory://name`, where a name is any host name.

    Parameters:
        max_message_bytes: the largest message its connections take.
    """

    schemes = frozenset({"memory"})

    def __init__(self, max_message_bytes: int = limits.MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes

    async def listen(self, url: str) -> MemoryListener:
        """See `Transport.listen`."""
        name = _name(url)
        if name in _listeners:
            raise TransportError(
                f"{url} is already in use: another master in this process? Choose another name"
            )
        listener = _listeners[name] = MemoryListener(name, self._max_message_bytes)
        return listener

    async def connect(self, url: str) -> MemoryConnection:
        """See `Transport.connect`."""
        listener = _listeners.get(_name(url))
        if listener is None:
            raise TransportError(
                f"nobody listens on {url}: a memory:// URL only reaches a master in the same process"
            )
        return listener.accept(self._max_message_bytes)


def _name(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "memory" or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise ConfigError(url, "is not a memory URL: expected something like memory://master")
    return parts.netloc


@hookimpl
def transports() -> Iterable[Provider[Transport]]:
    """Provide `memory`."""
    yield Provider(
        name="memory",
        create=lambda _: MemoryTransport(),
        summary="connections inside one process (memory://name)",
        schemes=MemoryTransport.schemes,
    )
