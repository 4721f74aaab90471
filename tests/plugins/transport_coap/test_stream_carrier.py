"""Requests over a stream: what the master says about itself counts."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from edgerm_transport_coap.carrier import CarrierLost
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.message import CHANGED, CSM, GET, POST, URI_PATH, Message, uint
from edgerm_transport_coap.stream_carrier import StreamCarrier
from edgerm_transport_coap.streams import TcpStream, open_tcp

from .raw import PATIENCE_S

pytestmark = pytest.mark.anyio


async def carrier_to(serve: object, config: CoapConfig) -> tuple[asyncio.Server, StreamCarrier]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]
    port = server.sockets[0].getsockname()[1]
    return server, StreamCarrier(await open_tcp("127.0.0.1", port), True, config)


async def test_payloads_are_as_long_as_the_master_takes() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = TcpStream(reader, writer)
        stream.write(Message(CSM, [(2, uint(20_000))]))
        request = await stream.read()
        stream.write(Message(CHANGED, token=request.token))
        await stream.close()

    server, carrier = await carrier_to(serve, CoapConfig())
    assert carrier.payload_bytes == 1024
    assert (await carrier.request(POST, [(URI_PATH, b"e")])).code == CHANGED
    assert 19_000 < carrier.payload_bytes < 20_000
    await carrier.close()
    server.close()


async def test_a_master_that_says_nothing_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server, carrier = await carrier_to(serve, CoapConfig(silence_s=0.1))
    with pytest.raises(CarrierLost, match=r"has not answered for 0\.1 s"):
        await carrier.request(GET, [])
    await carrier.close()
    server.close()


async def test_after_the_end_requests_fail_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server, carrier = await carrier_to(serve, CoapConfig())
    with anyio.fail_after(PATIENCE_S):
        for _ in range(2):
            with pytest.raises(CarrierLost, match="ended the connection"):
                await carrier.request(GET, [])
    await carrier.close()
    server.close()
