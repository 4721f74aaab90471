"""One connection, on either side: websockets' semantics turned into those of `Connection`."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

import anyio
from websockets.asyncio.connection import Connection as Stream
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import Close, CloseCode
from websockets.protocol import State

from edgerm_core import errors, interfaces
from edgerm_transport_ws.config import CLOSE_TIMEOUT_S

log = logging.getLogger(__name__)

MAX_REASON_BYTES = 123
"""RFC 6455, section 5.5: a control frame has 125 bytes, two of which are the code."""


class WsConnection(interfaces.Connection):
    """An open WebSocket.

    Parameters:
        stream: websockets' connection, past its handshake.
        peer, max_message_bytes, identity, local: see `interfaces.Connection`.
    """

    push = True

    def __init__(
        self, stream: Stream, *, peer: str, max_message_bytes: int, identity: str | None, local: bool
    ) -> None:
        self.peer = peer
        self.max_message_bytes = max_message_bytes
        self.identity = identity
        self.local = local
        self._stream = stream
        self._ended = ""

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        if len(data) > self.max_message_bytes:
            raise ValueError(
                f"a message of {len(data)} bytes is too large for {self.peer}: "
                f"transport.ws.max_message_bytes is {self.max_message_bytes}"
            )
        try:
            await self._stream.send(data)
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed
        except anyio.get_cancelled_exc_class():
            # The message is in the write buffer and cannot be taken out again. Were the connection to
            # stay, sends that are given up one after the other would fill the memory.
            self._ended = self._ended or f"this side gave up sending to {self.peer}"
            self._stream.transport.abort()
            raise
        if self._stream.state is State.CLOSED:
            # The connection was cut while the message waited in the write buffer.
            raise errors.ConnectionClosed(
                self._ended or f"the connection to {self.peer} broke while sending"
            )

    async def receive(self) -> bytes:
        """See `Connection.receive`. What the peer sent before it closed still comes."""
        if self._ended:
            raise errors.ConnectionClosed(self._ended)
        try:
            data = await self._stream.recv()
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed
        if self._ended:
            raise errors.ConnectionClosed(self._ended)
        if not isinstance(data, bytes):
            self._ended = f"{self.peer} sent a text message, but edgerm speaks binary ones only"
            await self.end(CloseCode.UNSUPPORTED_DATA, "send binary messages only")
        elif len(data) > self.max_message_bytes:
            # websockets has refused most of them: its limit is the same, but for compression.
            self._ended = _too_large(self.peer, self.max_message_bytes)
            await self.end(CloseCode.MESSAGE_TOO_BIG, f"the limit is {self.max_message_bytes} bytes")
        else:
            return data
        raise errors.ConnectionClosed(self._ended)

    async def close(self, reason: str = "") -> None:
        """See `Connection.close`. Takes at most CLOSE_TIMEOUT_S, then the connection is cut."""
        await self.end(CloseCode.NORMAL_CLOSURE, reason)

    async def end(self, code: CloseCode, reason: str) -> None:
        """Close with a code of RFC 6455, section 7.4.1. Otherwise as `close`."""
        if not self._ended and self._stream.state is State.OPEN:
            self._ended = f"this side closed the connection to {self.peer}" + (
                f": {reason}" if reason else ""
            )
        # websockets' own timeout does not count while the goodbye waits behind a full write buffer.
        # Cutting the connection wakes it up, which cancelling it from here would not do as cleanly.
        watchdog = self._stream.loop.call_later(CLOSE_TIMEOUT_S, self._stream.transport.abort)
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    group.start_soon(self._discard)
                    await self._stream.close(code, _shorten(reason))
                    group.cancel_scope.cancel()
        except Exception:
            log.debug("closing the connection to %s failed", self.peer, exc_info=True)
        finally:
            watchdog.cancel()
            self._stream.transport.abort()

    async def _discard(self) -> None:
        """Read on while the connection ends: the peer's goodbye stands behind what it sent before."""
        try:
            while True:
                await self._stream.recv()
        except (WebSocketException, UnicodeDecodeError):
            pass  # It has ended, or a `receive` is under way, which reads just as well.

    def _closed(self, closed: ConnectionClosed) -> errors.ConnectionClosed:
        if not self._ended:
            self._ended = explain_end(self.peer, self.max_message_bytes, closed)
        return errors.ConnectionClosed(self._ended)


def explain_end(peer: str, max_message_bytes: int, closed: ConnectionClosed) -> str:
    """Return one sentence on who ended the connection, and why."""
    received, sent = closed.rcvd, closed.sent
    if sent is not None and not (received is not None and closed.rcvd_then_sent):
        if sent.code == CloseCode.MESSAGE_TOO_BIG:
            return _too_large(peer, max_message_bytes)
        if sent.code in (CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA):
            return f"{peer} broke the WebSocket protocol: {sent.reason or sent.code}"
        if sent.reason == "keepalive ping timeout":
            return f"{peer} did not answer a ping: it is gone, or has been cut off"
    if received is not None:
        return f"{peer} closed the connection{_because(received)}"
    cause = closed.__cause__
    return f"the connection to {peer} broke: {cause or 'it ended without a goodbye'}"


def _too_large(peer: str, max_message_bytes: int) -> str:
    return (
        f"{peer} sent a message larger than the {max_message_bytes} bytes that this side takes "
        f"(transport.ws.max_message_bytes)"
    )


def _because(received: Close) -> str:
    if received.code == CloseCode.MESSAGE_TOO_BIG:
        return f": a message was larger than it takes{f' ({received.reason})' if received.reason else ''}"
    if received.reason:
        # A peer's words go into logs: one line, and nothing that a terminal would obey.
        return ": " + "".join(c if c.isprintable() else "?" for c in received.reason)
    if received.code in (CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RCVD):
        return ""
    return f" with code {received.code}"


def _shorten(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def host_and_port(address: Any) -> str:
    """Return a socket address for people, such as `192.0.2.7:51034` or `[2001:db8::1]:51034`."""
    if not isinstance(address, tuple) or len(address) < 2:
        return "?"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback_address(address: Any) -> bool:
    """Return whether a socket address is of this machine's loopback."""
    try:
        ip = ipaddress.ip_address(address[0].partition("%")[0])
    except (ValueError, TypeError, IndexError, AttributeError):
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)
