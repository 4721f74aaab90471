"""The master's side: binds, and hands sessions to the handler."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable

import anyio

from edgerm_core.errors import TransportError
from edgerm_core.interfaces import Connection, Listener
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.datagrams import Endpoint
from edgerm_transport_coap.resources import Resources
from edgerm_transport_coap.session import Session
from edgerm_transport_coap.streams import StreamServer
from edgerm_transport_coap.url import Url

log = logging.getLogger(__name__)

Handler = Callable[[Connection], Awaitable[None]]


async def listen(url: Url, config: CoapConfig) -> CoapListener:
    """Bind, and answer from now on; sessions wait until `serve` runs.

    Raises:
        TransportError: if the address is taken, not this machine's, or not allowed.
    """
    listener = CoapListener(url, config)
    try:
        await listener.start()
    except OSError as error:
        listener.resources.close("")
        raise TransportError(_explain_bind(url, error)) from error
    return listener


class CoapListener(Listener):
    """A bound address. Made by `listen`."""

    def __init__(self, url: Url, config: CoapConfig) -> None:
        self.url = url.text
        self.resources = Resources(config, self._on_session)
        self._url = url
        self._carrier: Endpoint | StreamServer | None = None
        self._arrived: asyncio.Queue[Session] = asyncio.Queue()
        #: asyncio's own: those of a task group cost each of many sessions two KiB more.
        self._handlers: set[asyncio.Task[None]] = set()
        self._closed = anyio.Event()

    async def start(self) -> None:
        """Bind. Raises OSError if the system does not let us."""
        url = self._url
        if url.scheme == "coap":
            sock = await _bind(url)
            self._carrier = Endpoint(sock, self.resources.handle)
            port = int(sock.getsockname()[1])
        else:
            self._carrier = StreamServer(self.resources.handle)
            port = await self._carrier.start(url)
        self.url = url.with_port(port)

    async def serve(self, handler: Handler) -> None:
        """See `Listener.serve`. After `close` it returns when the last handler has."""
        if self._closed.is_set():
            return
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._accept, handler)
                await self._closed.wait()
                group.cancel_scope.cancel()
            while self._handlers:
                await asyncio.wait(self._handlers)
        finally:
            for task in self._handlers:
                task.cancel()
            while self._handlers:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait(self._handlers)
            for session in list(self.resources.sessions.values()):
                session.end("the master has stopped listening")
                self.resources.forget(session)

    async def _accept(self, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        while True:
            session = await self._arrived.get()
            task = loop.create_task(self._run(handler, session))
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)

    async def _run(self, handler: Handler, session: Session) -> None:
        """Run the handler for one session."""
        try:
            await handler(session)
        except Exception:
            log.exception("the handler of %s failed; its session is closed", session.peer)
            session.end("internal error")
        finally:
            session.end("the master closed the session")
            self.resources.forget(session)

    async def close(self) -> None:
        """See `Listener.close`."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.resources.close("the master has stopped listening")
        if isinstance(self._carrier, StreamServer):
            with anyio.CancelScope(shield=True):
                await self._carrier.close()
        elif self._carrier is not None:
            self._carrier.close()

    def _on_session(self, session: Session) -> None:
        self._arrived.put_nowait(session)


async def _bind(url: Url) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


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
