"""The master's side: accepts connections and hands them to the handler."""

from __future__ import annotations

import errno
import http
import logging
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Any, cast

import anyio
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from edgerm_core.errors import TransportError
from edgerm_core.interfaces import Connection, Listener
from edgerm_transport_ws import tls
from edgerm_transport_ws.config import (
    CLOSE_TIMEOUT_S,
    LISTEN_BACKLOG,
    MAX_HANDSHAKES,
    RECEIVE_QUEUE_FRAMES,
    SUBPROTOCOL,
    WRITE_BUFFER_BYTES,
    WsConfig,
)
from edgerm_transport_ws.connection import WsConnection, host_and_port, is_loopback_address
from edgerm_transport_ws.stream import BufferedReads, QuietLogger
from edgerm_transport_ws.url import Url

log = logging.getLogger(__name__)

FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via")
"""Any of them says that a proxy speaks for somebody else, who need not be on this machine."""

Handler = Callable[[Connection], Awaitable[None]]


async def listen(url: Url, config: WsConfig) -> WsListener:
    """Bind, and accept from now on; connections wait until `serve` runs.

    Raises:
        TransportError: if the address is taken, not this machine's, or not allowed.
        ConfigError: if the certificate cannot be used.
    """
    context = tls.server_context(config) if url.secure else None
    listener = WsListener(url, config)
    try:
        await listener.start(context)
    except OSError as error:
        raise TransportError(_explain_bind(url, error)) from error
    return listener


class _AcceptedStream(BufferedReads, ServerConnection):
    """websockets' connection of the listening side, which is counted from its first byte on."""

    listener: WsListener

    def connection_made(self, transport: Any) -> None:
        self.listener.streams.add(self)
        super().connection_made(transport)
        if len(self.listener.streams) > self.listener.config.max_connections + MAX_HANDSHAKES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.streams.discard(self)
        super().connection_lost(exc)


class WsListener(Listener):
    """A bound address. Made by `listen`."""

    def __init__(self, url: Url, config: WsConfig) -> None:
        self.url = url.text
        self.config = config
        self.streams: set[_AcceptedStream] = set()
        """All TCP connections, those in their handshake included."""
        self._url = url
        self._open: dict[WsConnection, anyio.CancelScope] = {}
        self._server: Server | None = None
        self._handler: Handler | None = None
        self._serving = anyio.Event()
        self._closed = anyio.Event()
        self._ended = anyio.Event()

    async def start(self, context: Any) -> None:
        """Bind and accept. Raises OSError if the system does not let us."""

        def create_connection(*args: Any, **kwargs: Any) -> _AcceptedStream:
            stream = _AcceptedStream(*args, **kwargs)
            stream.listener = self
            return stream

        config = self.config
        self._server = await serve(
            self._accept,
            self._url.host,
            self._url.port,
            ssl=context,
            backlog=LISTEN_BACKLOG,
            # Only browsers send an origin. A page that somebody looks at on this machine must not
            # reach the master through 127.0.0.1.
            origins=[None],
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression="deflate" if config.compression else None,
            process_request=self._check_request,
            server_header="edgerm",
            open_timeout=config.open_timeout_s,
            ping_interval=config.ping_interval_s or None,
            ping_timeout=config.ping_timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=config.max_frame_bytes,
            max_queue=RECEIVE_QUEUE_FRAMES,
            write_limit=WRITE_BUFFER_BYTES,
            logger=QuietLogger(),
            create_connection=cast(type[ServerConnection], create_connection),
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        scheme = "wss" if self._url.secure else "ws"
        self.url = f"{scheme}://{host_and_port((self._url.host, port))}{self._url.path}"

    async def serve(self, handler: Handler) -> None:
        """See `Listener.serve`. After `close` it returns when the last handler has."""
        assert self._handler is None, "serve runs already"
        self._handler = handler
        self._serving.set()
        try:
            await self._closed.wait()
            await self._wait_ended(self._open)
        except BaseException:
            # Peers that dial again meanwhile wait for the next `serve`, and do not keep this one.
            served = dict(self._open)
            self._stop_serving()
            for scope in served.values():
                scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._wait_ended(served)
            raise
        self._stop_serving()

    def _stop_serving(self) -> None:
        self._handler = None
        self._serving = anyio.Event()

    async def close(self) -> None:
        """See `Listener.close`. Takes at most CLOSE_TIMEOUT_S."""
        if self._server is not None and not self._closed.is_set():
            self._closed.set()
            self._serving.set()
            self._server.close(close_connections=False)
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    for connection in self._open:
                        group.start_soon(connection.end, CloseCode.GOING_AWAY, "the listener closed")
            for stream in list(self.streams):
                stream.transport.abort()

    async def _wait_ended(self, connections: Collection[WsConnection]) -> None:
        while any(connection in self._open for connection in connections):
            self._ended = anyio.Event()
            await self._ended.wait()

    def _check_request(self, stream: ServerConnection, request: Request) -> Response | None:
        """Refuse with a sentence what is no peer of ours; None lets the handshake go on."""
        if "Upgrade" not in request.headers:
            response = stream.respond(
                http.HTTPStatus.UPGRADE_REQUIRED,
                "This is an edgerm master. It speaks WebSocket, which a browser does not by itself: "
                "use the edgerm command, or an agent.\n",
            )
            response.headers["Upgrade"] = "websocket"
            return response
        wanted = self._url.path.rstrip("/")
        if wanted and request.path.partition("?")[0].rstrip("/") != wanted:
            return stream.respond(http.HTTPStatus.NOT_FOUND, f"Here is nothing: dial {self._url.path}\n")
        if len(self._open) >= self.config.max_connections:
            return stream.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"This edgerm master has {self.config.max_connections} connections and takes no more: "
                f"try again later, or raise transport.ws.max_connections.\n",
            )
        return None

    async def _accept(self, stream: ServerConnection) -> None:
        """Run the handler for one connection, in the task that websockets made for it."""
        assert stream.request is not None
        forwarded = any(name in stream.request.headers for name in FORWARDING_HEADERS)
        connection = WsConnection(
            stream,
            peer=f"{'wss' if self._url.secure else 'ws'}://{host_and_port(stream.remote_address)}",
            max_message_bytes=self.config.max_message_bytes,
            identity=tls.certificate_name(stream.transport.get_extra_info("peercert")),
            local=is_loopback_address(stream.remote_address) and not forwarded,
        )
        code, reason = CloseCode.NORMAL_CLOSURE, ""
        with anyio.CancelScope() as scope:
            self._open[connection] = scope
            try:
                await self._serving.wait()
                if self._handler is not None:
                    await self._handler(connection)
            except Exception:
                log.exception("the handler of %s failed; its connection is closed", connection.peer)
                code, reason = CloseCode.INTERNAL_ERROR, "internal error"
            finally:
                if scope.cancel_called:
                    code = CloseCode.GOING_AWAY
                try:
                    await connection.end(code, reason)
                finally:
                    del self._open[connection]
                    self._ended.set()


def _explain_bind(url: Url, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"{url.text}: the name {url.host} has no address: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"{url.text} is already in use: another master? Stop it, or listen on another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{url.text}: not allowed to listen on port {url.port}: ports below 1024 need root or the "
            f"capability CAP_NET_BIND_SERVICE; listen on a higher one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{url.text}: {url.host} is no address of this machine; 0.0.0.0 means all IPv4 addresses"
    return f"{url.text} cannot be listened on: {error.strerror or error}"
