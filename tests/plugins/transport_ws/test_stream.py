"""What is changed in websockets' connections."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import anyio
import pytest
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.stream import READ_BUFFER_BYTES, TLS_BUFFER_BYTES, BufferedReads, QuietLogger
from edgerm_transport_ws.transport import WsTransport

from edgerm_core.interfaces import Connection
from edgerm_core.testing.contracts.transport import echo, serving_pair

pytestmark = pytest.mark.anyio


def stream_of(connection: Connection) -> Any:
    stream = connection._stream  # type: ignore[attr-defined]
    assert isinstance(stream, BufferedReads)
    return stream


async def test_asyncio_reads_into_the_shared_buffer() -> None:
    transport = WsTransport(WsConfig())
    async with serving_pair(transport, transport, "ws://127.0.0.1:0") as ends:
        for end in ends:
            assert isinstance(stream_of(end), asyncio.BufferedProtocol)
            assert len(stream_of(end).get_buffer(-1)) == READ_BUFFER_BYTES
        assert stream_of(ends[0]).get_buffer(-1) is stream_of(ends[1]).get_buffer(-1)


async def test_two_event_loops_in_two_threads_do_not_share_a_buffer() -> None:
    async def exchange(letter: bytes) -> None:
        transport = WsTransport(WsConfig())
        listener = await transport.listen("ws://127.0.0.1:0")
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            connection = await transport.connect(listener.url)
            for size in range(0, 200_000, 4999):
                await connection.send(letter * size)
                assert await connection.receive() == letter * size
            await connection.close()
            await listener.close()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for letter in (b"a", b"b", b"c"):
                group.start_soon(anyio.to_thread.run_sync, anyio.run, exchange, letter)


async def test_tls_buffers_are_small(certificates: dict[str, str]) -> None:
    listening = WsTransport(
        WsConfig(certificate=certificates["server.pem"], key=certificates["server.key"])
    )
    dialing = WsTransport(WsConfig(ca=certificates["ca.pem"]))
    async with serving_pair(listening, dialing, "wss://127.0.0.1:0") as ends:
        for end in ends:
            assert len(stream_of(end).transport._ssl_protocol._ssl_buffer) == TLS_BUFFER_BYTES


async def test_the_kernel_gives_up_a_peer_that_takes_nothing_for_a_ping_and_its_timeout() -> None:
    transport = WsTransport(WsConfig(ping_interval_s=7, ping_timeout_s=4))
    async with serving_pair(transport, transport, "ws://127.0.0.1:0") as ends:
        for end in ends:
            sock = stream_of(end).transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 11_000


def test_what_websockets_logs_as_an_error_is_only_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edgerm_transport_ws.websockets")
    nested = logging.LoggerAdapter(QuietLogger(), {"websocket": "w"})
    nested.error("opening handshake failed", exc_info=True)
    nested.info("connection open")
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.DEBUG, "opening handshake failed"),
        (logging.DEBUG, "connection open"),
    ]
