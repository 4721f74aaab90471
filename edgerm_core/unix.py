"""Unix sockets whose reader may be cancelled at any time."""

from __future__ import annotations

import anyio
from anyio.abc import SocketAttribute, SocketStream


async def receive(stream: SocketStream, max_bytes: int) -> bytes:
    """Return what has come, as `stream.receive` does. Cancel-safe.

    anyio's own (4.16) does not bear to be cancelled in the moment when something comes: the event loop is
    told an exception, which it logs.

    Raises:
        anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError: as `stream.receive`.
    """
    socket = stream.extra(SocketAttribute.raw_socket)
    if socket.fileno() >= 0:
        await anyio.wait_readable(socket)
    return await stream.receive(max_bytes)


async def close(stream: SocketStream) -> None:
    """Close it; who receives just then gets anyio.ClosedResourceError. Idempotent."""
    anyio.notify_closing(stream.extra(SocketAttribute.raw_socket))
    await stream.aclose()
