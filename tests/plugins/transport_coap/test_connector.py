"""Dialing: what is said when it fails."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.message import ACK, Message, decode_datagram, encode_datagram
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.errors import TransportError

from .raw import PATIENCE_S, Sessions, listening

pytestmark = pytest.mark.anyio


async def failure(url: str, **config: float) -> str:
    with anyio.fail_after(PATIENCE_S), pytest.raises(TransportError) as caught:
        await CoapTransport(CoapConfig(**config)).connect(url)  # type: ignore[arg-type]
    assert url in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp", "coap+ws"])
async def test_nobody_listens(scheme: str) -> None:
    sentence = await failure(f"{scheme}://127.0.0.1:1")
    assert "refused" in sentence
    assert "is the master running?" in sentence


async def test_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"coap://127.0.0.1:{silent.getsockname()[1]}"
        sentence = await failure(url, open_timeout_s=0.2)
    assert "did not answer within 0.2 s" in sentence
    assert "firewall" in sentence


async def test_a_name_without_address() -> None:
    for scheme in ("coap", "coap+tcp"):
        assert "cannot be found" in await failure(f"{scheme}://nobody.invalid")


async def test_a_coap_server_that_is_no_master() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setblocking(False)
        server.bind(("127.0.0.1", 0))

        async def answer() -> None:
            data, peer = await loop.sock_recvfrom(server, 2048)
            request = decode_datagram(data)
            reply = Message(0x84, [], b"what?", kind=ACK, mid=request.mid, token=request.token)
            server.sendto(encode_datagram(reply), peer)

        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            sentence = await failure(f"coap://127.0.0.1:{server.getsockname()[1]}")
    assert "answered 4.04 (what?)" in sentence
    assert "no edgerm master" in sentence


async def test_a_web_server_that_is_no_coap_server() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "WebSocket" in await failure(f"coap+ws://127.0.0.1:{port}")
    await failure(f"coap+tcp://127.0.0.1:{port}")
    server.close()


async def test_a_master_with_too_many_sessions(sessions: Sessions) -> None:
    async with listening(sessions, CoapConfig(max_sessions=1)) as listener:
        first = await CoapTransport(CoapConfig()).connect(listener.url)
        await first.send(b"here")  # Used: it does not make room.
        assert await (await sessions.next()).receive() == b"here"
        assert "transport.coap.max_sessions" in await failure(listener.url)
        await first.close()


async def test_a_host_name_with_several_addresses_is_tried_until_one_answers() -> None:
    """Many systems say ::1 first for localhost."""
    async with listening() as listener:
        port = listener.url.rpartition(":")[2]
        connection = await CoapTransport(CoapConfig()).connect(f"coap://localhost:{port}")
        await connection.send(b"hello")
        assert await connection.receive() == b"hello"
        assert connection.local
        await connection.close()


async def test_the_session_is_as_the_config_says(sessions: Sessions) -> None:
    config = CoapConfig(max_message_bytes=2048, round_trip_s=61.5)
    async with listening(sessions) as listener:
        connection = await CoapTransport(config).connect(listener.url)
        session = await sessions.next()
        assert session.max_message_bytes == 2048
        assert getattr(session, "repeat_s") == 1.5 * 62  # noqa: B009 - of the concrete type
        await connection.close()
