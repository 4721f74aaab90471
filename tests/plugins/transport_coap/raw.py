"""A CoAP peer that does exactly what a test tells it, and a listener for it to talk to."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.listener import CoapListener
from edgerm_transport_coap.message import (
    ACK,
    BLOCK1,
    BLOCK2,
    CON,
    EMPTY,
    LOCATION_PATH,
    POST,
    URI_PATH,
    URI_QUERY,
    Message,
    Options,
    block,
    decode_datagram,
    encode_datagram,
)
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection

PATIENCE_S = 10.0

UNHURRIED_S = 60.0
"""See `unhurried`."""

Handler = Callable[[Connection], Awaitable[None]]

_mids = itertools.count(1)
_tokens = itertools.count(1)


class Peer:
    """A UDP socket, and what has come to it."""

    def __init__(self, url: str, source: str = "127.0.0.1") -> None:
        host, _, port = url.removeprefix("coap://").rpartition(":")
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind((source, 0))
        self._sock.connect((host, int(port)))
        self.sent_bytes = 0
        self.received_bytes = 0

    def close(self) -> None:
        self._sock.close()

    # --- datagrams ----------------------------------------------------------------------------

    def send_bytes(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self._sock.send(data)

    def send(self, message: Message) -> None:
        self.send_bytes(encode_datagram(message))

    async def receive(self) -> Message:
        with anyio.fail_after(PATIENCE_S):
            data = await self._loop.sock_recv(self._sock, 2048)
        self.received_bytes += len(data)
        return decode_datagram(data)

    async def nothing_comes(self, within_s: float = 0.15) -> bool:
        with anyio.move_on_after(within_s):
            await self._loop.sock_recv(self._sock, 2048)
            return False
        return True

    # --- requests -----------------------------------------------------------------------------

    def request(
        self, code: int, path: str, options: Options | None = None, payload: bytes = b""
    ) -> Message:
        """Return a request; `path` may have a query."""
        path, _, query = path.partition("?")
        chosen: Options = [(URI_PATH, part.encode()) for part in path.split("/")]
        chosen += [(URI_QUERY, part.encode()) for part in query.split("&") if part]
        chosen = sorted([*chosen, *(options or [])], key=lambda option: option[0])
        token = next(_tokens).to_bytes(2, "big")
        return Message(code, chosen, payload, token=token, mid=next(_mids) & 0xFFFF)

    async def ask(
        self,
        code: int,
        path: str,
        options: Options | None = None,
        payload: bytes = b"",
        *,
        kind: int = CON,
    ) -> Message:
        """Send a request and return its answer, piggybacked or separate; separate ones are acknowledged."""
        request = self.request(code, path, options, payload)
        request.kind = kind
        self.send(request)
        return await self.answer_to(request)

    async def answer_to(self, request: Message) -> Message:
        while True:
            answer = await self.receive()
            if answer.kind == CON:
                self.acknowledge(answer)
            if answer.code != EMPTY and answer.token == request.token:
                return answer

    def acknowledge(self, message: Message) -> None:
        self.send(Message(EMPTY, kind=ACK, mid=message.mid))

    async def open(self, query: str = "", payload: bytes = b"") -> str:
        """Open a session; return its name."""
        answer = await self.ask(POST, f"e?{query}", payload=payload)
        assert answer.code == 0x41, hex(answer.code)
        return [value for number, value in answer.options if number == LOCATION_PATH][1].decode()


@asynccontextmanager
async def listening(
    handler: Handler | None = None, config: CoapConfig | None = None, url: str = "coap://127.0.0.1:0"
) -> AsyncIterator[CoapListener]:
    """Yield a listener that runs `handler` (by default: echo) for each session."""
    listener = await CoapTransport(config or CoapConfig()).listen(url)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, handler or echo)
        try:
            yield listener
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await listener.close()


@asynccontextmanager
async def peer_of(listener: CoapListener, source: str = "127.0.0.1") -> AsyncIterator[Peer]:
    peer = Peer(listener.url, source)
    try:
        yield peer
    finally:
        peer.close()


class Sessions:
    """A handler that hands the sessions to the test, and keeps them until it is over."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Connection](100)

    async def __call__(self, connection: Connection) -> None:
        self._send.send_nowait(connection)
        await anyio.sleep_forever()

    async def next(self) -> Connection:
        with anyio.fail_after(PATIENCE_S):
            return await self._receive.receive()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


def pass_time(seconds: float) -> None:
    """Let the event loop's clock jump: what is due by then is due now, without anybody having waited.

    A time-out need not be so short for a test that a busy machine exceeds it.
    """
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]


async def echo(connection: Connection) -> None:
    try:
        while True:
            await connection.send(await connection.receive())
    except ConnectionClosed:
        pass


def block1(number: int, more: bool, exponent: int = 6) -> Options:
    return [(BLOCK1, block(number, more, exponent))]


def block2(number: int, exponent: int = 6) -> Options:
    return [(BLOCK2, block(number, False, exponent))]
