"""Connections that do not come to the point are cut; those that sessions live on are not."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from edgerm_transport_coap.config import STRANGER_S
from edgerm_transport_coap.message import CONTENT, CREATED, CSM, DELETE, GET, POST, URI_PATH, Message
from edgerm_transport_coap.streams import Stream, StreamEnded, open_tcp, open_websocket

from .raw import PATIENCE_S, Sessions, listening, pass_time

pytestmark = pytest.mark.anyio


async def dial(url: str) -> Stream:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme == "coap+tcp":
        return await open_tcp(host, int(port))
    return await open_websocket(host, int(port), local=True)


async def ask(stream: Stream, code: int, *path: bytes) -> Message:
    stream.write(Message(code, [(URI_PATH, part) for part in path], token=b"t"))
    with anyio.fail_after(PATIENCE_S):
        return await stream.read()


async def is_cut(stream: Stream) -> bool:
    with anyio.fail_after(PATIENCE_S):
        try:
            while (await stream.read_any()).code == CSM:
                pass
        except StreamEnded:
            return True
    return False


@pytest.mark.parametrize("scheme", ["coap+tcp", "coap+ws"])
async def test_whoever_opens_no_session_is_cut_in_time(scheme: str, sessions: Sessions) -> None:
    async with listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener:
        host, port = "127.0.0.1", int(listener.url.rpartition(":")[2])
        useful = await dial(listener.url)
        useful.greet()
        opened = await ask(useful, POST, b"e")
        assert opened.code == CREATED
        silent_reader, silent_writer = await asyncio.open_connection(host, port)
        useless = await dial(listener.url)
        useless.greet()
        # It is answered, but that does not keep it.
        assert (await ask(useless, GET, b".well-known", b"core")).code == CONTENT
        pass_time(STRANGER_S)
        assert await is_cut(useless)
        with anyio.fail_after(PATIENCE_S):
            try:
                while await silent_reader.read(100):  # The greeting comes before, over TCP.
                    pass
            except ConnectionResetError:
                pass
        assert (await ask(useful, GET, b".well-known", b"core")).code == CONTENT
        # Once its session has gone, it is a stranger again.
        await ask(useful, DELETE, *[value for _, value in opened.options[:2]])
        pass_time(STRANGER_S)
        assert await is_cut(useful)
        silent_writer.close()
        for stream in (useful, useless):
            await stream.close()


@pytest.mark.parametrize("scheme", ["coap+tcp", "coap+ws"])
async def test_the_oldest_of_too_many_strangers_goes(
    scheme: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_transport_coap.strangers.STRANGERS", 2)
    async with listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener:
        streams = []
        for number in range(4):
            stream = await dial(listener.url)
            streams.append(stream)
            stream.greet()
            if number == 0:
                assert (await ask(stream, POST, b"e")).code == CREATED
            else:
                assert (await ask(stream, GET, b".well-known", b"core")).code == CONTENT
        assert await is_cut(streams[1])
        for number in (0, 2, 3):
            assert (await ask(streams[number], GET, b".well-known", b"core")).code == CONTENT
        for stream in streams:
            await stream.close()
