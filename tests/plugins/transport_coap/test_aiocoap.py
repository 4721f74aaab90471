"""aiocoap, an implementation of others, as a device: over UDP, TCP and WebSocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiocoap  # type: ignore[import-untyped]
import anyio
import pytest
from edgerm_transport_coap.config import CoapConfig

from .raw import PATIENCE_S, Sessions, echo, listening

pytestmark = pytest.mark.anyio

CLIENTS = {"coap": "udp6", "coap+tcp": "tcpclient", "coap+ws": "ws"}


@asynccontextmanager
async def device(scheme: str) -> AsyncIterator[aiocoap.Context]:
    context = await aiocoap.Context.create_client_context(transports=[CLIENTS[scheme]])
    try:
        yield context
    finally:
        await context.shutdown()


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("scheme", ["coap", "coap+tcp", "coap+ws"])
async def test_a_session_with_long_frames_both_ways(scheme: str) -> None:
    frame = bytes(range(256)) * 20
    config = CoapConfig(max_message_bytes=65536)
    async with listening(echo, config, f"{scheme}://127.0.0.1:0") as listener, device(scheme) as context:
        with anyio.fail_after(PATIENCE_S):
            opening = aiocoap.Message(code=aiocoap.POST, uri=f"{listener.url}/e?m=65536", payload=b"hello")
            opened = await context.request(opening).response
            assert (opened.code, opened.payload) == (aiocoap.CREATED, b"hello")
            path = "/".join(opened.opt.location_path)
            for number in (1, 2):
                exchange = aiocoap.Message(
                    code=aiocoap.POST, uri=f"{listener.url}/{path}?{number}", payload=frame
                )
                answer = await context.request(exchange).response
                assert (answer.code, answer.payload) == (aiocoap.CHANGED, frame)
            gone = aiocoap.Message(code=aiocoap.DELETE, uri=f"{listener.url}/{path}")
            assert (await context.request(gone).response).code == aiocoap.DELETED


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
async def test_it_observes_the_session(scheme: str, sessions: Sessions) -> None:
    async with listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener, device(scheme) as context:
        with anyio.fail_after(PATIENCE_S):
            opening = aiocoap.Message(code=aiocoap.POST, uri=f"{listener.url}/e")
            opened = await context.request(opening).response
            uri = f"{listener.url}/{'/'.join(opened.opt.location_path)}"
            watching = context.request(aiocoap.Message(code=aiocoap.GET, uri=uri, observe=0))
            assert (await watching.response).payload == b"0"
            connection = await sessions.next()
            for number in (1, 2):
                await connection.send(b"order %d" % number)
                async for note in watching.observation:
                    assert note.payload == b"7"
                    break
                exchange = aiocoap.Message(code=aiocoap.POST, uri=f"{uri}?{number}")
                assert (await context.request(exchange).response).payload == b"order %d" % number
            watching.observation.cancel()
