"""What edgerm changes in websockets' connections: how they read, and what they log.

asyncio allocates 256 KiB for each read of a plain protocol, and each allocation of that size is a
mapping of its own: at load it is half of a server's time. A `BufferedProtocol` says itself where to
read to. All connections of a thread share one small buffer, which is free again when
`buffer_updated` returns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection

if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[logging.Logger]
else:
    _LoggerAdapter = logging.LoggerAdapter

READ_BUFFER_BYTES: Final = 64 << 10
"""One read of a socket. Bounds also how many tiny frames one read can hold."""

TLS_BUFFER_BYTES: Final = 16 << 10
"""Kept for each TLS connection; the size of a TLS record."""

_thread = threading.local()


def _read_buffer() -> memoryview:
    buffer: memoryview | None = getattr(_thread, "buffer", None)
    if buffer is None:
        buffer = _thread.buffer = memoryview(bytearray(READ_BUFFER_BYTES))
    return buffer


class BufferedReads(Connection, asyncio.BufferedProtocol):
    """Mixed into websockets' connection classes; they call it the escape hatch for customization."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where asyncio shall read to."""
        return _read_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what asyncio has read."""
        self.data_received(bytes(_read_buffer()[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: shrink TLS buffers, and let the kernel notice a peer that takes nothing."""
        shrink_tls_buffer(transport)
        if self.ping_interval is not None and self.ping_timeout is not None:
            # A ping behind a full write buffer never leaves, so that pings alone would not find a
            # peer that is gone. RFC 5482; Linux applies it to a peer with a closed window, too.
            limit_unacknowledged(transport, self.ping_interval + self.ping_timeout)
        super().connection_made(transport)


class DialedStream(BufferedReads, ClientConnection):
    """websockets' connection of the dialing side."""

    _lost: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what ended it may be what made the handshake fail."""
        self._lost = exc
        super().connection_lost(exc)

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Shake hands. A server that refuses our TLS certificate says so only now (TLS 1.3)."""
        try:
            await super().handshake(*args, **kwargs)
        except Exception as error:
            if self._lost is None:
                raise
            raise error from self._lost


def limit_unacknowledged(transport: asyncio.BaseTransport, limit_s: float) -> None:
    """Let the kernel end the connection when what was sent stays unacknowledged for `limit_s`."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(limit_s * 1000))


def shrink_tls_buffer(transport: asyncio.BaseTransport) -> None:
    """Give back most of the 256 KiB that asyncio's TLS layer keeps for each connection.

    There is no public way: the size is an attribute of the private class `asyncio.sslproto.SSLProtocol`.
    Where its inside is another one (uvloop, a later Python) nothing is changed.
    """
    tls: Any = getattr(transport, "_ssl_protocol", None)
    if getattr(tls, "max_size", 0) > TLS_BUFFER_BYTES and hasattr(tls, "_ssl_buffer_view"):
        # No byte of the old buffer is needed: asyncio takes them out before it calls anybody.
        tls.max_size = TLS_BUFFER_BYTES
        tls._ssl_buffer = bytearray(TLS_BUFFER_BYTES)
        tls._ssl_buffer_len = TLS_BUFFER_BYTES
        tls._ssl_buffer_view = memoryview(tls._ssl_buffer)


class QuietLogger(_LoggerAdapter):
    """Turns everything websockets logs into DEBUG.

    Whatever it has to say is about one peer, who may be anybody: a port scanner must not fill the log.
    What matters reaches edgerm as an exception.
    """

    def __init__(self) -> None:
        super().__init__(logging.getLogger("edgerm_transport_ws.websockets"), {})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave everything as it is."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at DEBUG, whatever `level` says."""
        super().log(logging.DEBUG, msg, *args, **kwargs)
