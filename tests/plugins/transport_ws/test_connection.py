"""One connection: how it ends, and what is said about it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from edgerm_transport_ws.config import SUBPROTOCOL, WsConfig
from edgerm_transport_ws.connection import explain_end, host_and_port, is_loopback_address
from edgerm_transport_ws.transport import WsTransport
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed as StreamClosed
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_core.testing.contracts.transport import serving_pair

pytestmark = pytest.mark.anyio

URL = "ws://127.0.0.1:0"


@pytest.mark.parametrize(
    ("message", "code"),
    [("text", 1003), (b"\xff\xfe", 1007)],
    ids=["text", "text that is not UTF-8"],
)
async def test_a_text_message_ends_the_connection_with_the_right_code(message: Any, code: int) -> None:
    listener = await WsTransport(WsConfig()).listen(URL)
    sentences: list[str] = []

    async def receive(connection: Connection) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.receive()
        sentences.append(str(caught.value))
        with pytest.raises(ConnectionClosed):
            await connection.send(b"too late")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, receive)
            async with connect(listener.url, subprotocols=[SUBPROTOCOL], proxy=None) as stream:  # type: ignore[list-item]
                await stream.send(message, text=True)
                with pytest.raises(StreamClosed) as caught:
                    await stream.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == code
            await listener.close()
    assert len(sentences) == 1
    assert "text" in sentences[0] or "WebSocket protocol" in sentences[0]


async def test_frames_that_break_the_protocol_end_the_connection_with_a_sentence() -> None:
    transport = WsTransport(WsConfig())
    async with serving_pair(transport, transport, URL) as (dialing, listening):
        dialing._stream.transport.write(b"\xf2\x00nonsense")  # type: ignore[attr-defined]
        with anyio.fail_after(20), pytest.raises(ConnectionClosed, match="broke the WebSocket protocol"):
            await listening.receive()


async def test_a_peer_that_vanishes_ends_the_connection() -> None:
    transport = WsTransport(WsConfig())
    async with serving_pair(transport, transport, URL) as (dialing, listening):
        dialing._stream.transport.abort()  # type: ignore[attr-defined]
        with anyio.fail_after(20), pytest.raises(ConnectionClosed, match=r"127\.0\.0\.1:\d+ broke"):
            await listening.receive()


async def test_a_peer_that_does_not_answer_pings_is_found_gone() -> None:
    listening_transport = WsTransport(WsConfig(ping_interval_s=0.1, ping_timeout_s=0.1))
    async with serving_pair(listening_transport, WsTransport(WsConfig()), URL) as (dialing, listening):
        dialing._stream.transport.pause_reading()  # type: ignore[attr-defined]
        with anyio.fail_after(20), pytest.raises(ConnectionClosed, match="did not answer a ping"):
            await listening.receive()


async def test_a_peer_that_takes_nothing_does_not_hold_send_forever() -> None:
    """A ping behind a full write buffer never leaves, so that pings alone do not end this."""
    listening_transport = WsTransport(WsConfig(ping_interval_s=0.5, ping_timeout_s=0.5))
    async with serving_pair(listening_transport, WsTransport(WsConfig()), URL) as (dialing, listening):
        dialing._stream.transport.pause_reading()  # type: ignore[attr-defined]

        async def send_forever() -> None:
            while True:
                await listening.send(bytes(1 << 20))

        with anyio.fail_after(20), pytest.raises(ConnectionClosed):
            await send_forever()


async def test_a_reason_may_be_longer_than_a_close_frame() -> None:
    transport = WsTransport(WsConfig())
    async with serving_pair(transport, transport, URL) as (dialing, listening):
        with anyio.fail_after(20):
            await listening.close("größer " * 50)
            with pytest.raises(ConnectionClosed, match="closed the connection: größer größer"):
                await dialing.receive()


async def test_a_reason_cannot_smuggle_control_characters_into_a_log() -> None:
    transport = WsTransport(WsConfig())
    async with serving_pair(transport, transport, URL) as (dialing, listening):
        with anyio.fail_after(20):
            await dialing.close("a\nERROR forged \x1b[31m")
            with pytest.raises(ConnectionClosed) as caught:
                await listening.receive()
    assert str(caught.value).endswith("a?ERROR forged ?[31m")


@pytest.mark.parametrize(
    ("closed", "sentence"),
    [
        (ConnectionClosedError(None, Close(1009, ""), None), "P sent a message larger than the 77 bytes"),
        (
            ConnectionClosedError(None, Close(1002, "bad frame"), None),
            "P broke the WebSocket protocol: bad frame",
        ),
        (
            ConnectionClosedError(None, Close(1011, "keepalive ping timeout"), None),
            "P did not answer a ping",
        ),
        (
            ConnectionClosedError(Close(1009, ""), Close(1009, ""), True),
            "P closed the connection: a message was larger",
        ),
        (
            ConnectionClosedError(Close(1000, "bye"), Close(1000, "bye"), True),
            "P closed the connection: bye",
        ),
        (ConnectionClosedError(Close(1000, ""), None, None), "P closed the connection"),
        (ConnectionClosedError(Close(1001, ""), None, None), "P closed the connection with code 1001"),
        (ConnectionClosedError(None, None, None), "the connection to P broke: it ended without a goodbye"),
    ],
)
def test_the_end_is_explained_in_a_sentence(closed: ConnectionClosedError, sentence: str) -> None:
    assert explain_end("P", 77, closed).startswith(sentence)


def test_a_broken_connection_names_the_systems_error() -> None:
    closed = ConnectionClosedError(None, None, None)
    closed.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert explain_end("P", 77, closed).endswith("broke: [Errno 104] Connection reset by peer")


@pytest.mark.parametrize(
    ("address", "text", "loopback"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80", True),
        (("127.9.9.9", 80), "127.9.9.9:80", True),
        (("192.0.2.7", 80), "192.0.2.7:80", False),
        (("::1", 80, 0, 0), "[::1]:80", True),
        (("::ffff:127.0.0.1", 80, 0, 0), "[::ffff:127.0.0.1]:80", True),
        (("::ffff:192.0.2.7", 80, 0, 0), "[::ffff:192.0.2.7]:80", False),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80", False),
        (None, "?", False),
        ("/run/socket", "?", False),
    ],
)
def test_addresses_are_spelt_for_people_and_loopback_is_known(
    address: object, text: str, loopback: bool
) -> None:
    assert host_and_port(address) == text
    assert is_loopback_address(address) is loopback
