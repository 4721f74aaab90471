"""RFC 8323: CSM, signals, limits; over TCP and WebSocket."""

from __future__ import annotations

import asyncio
import logging

import anyio
import pytest
from edgerm_transport_coap.message import (
    ABORT,
    BLOCK2,
    CONTENT,
    CSM,
    EMPTY,
    GET,
    LOCATION_PATH,
    MORE,
    NOT_FOUND,
    PING,
    PONG,
    POST,
    RELEASE,
    URI_PATH,
    URI_QUERY,
    Message,
    Options,
    block,
    encode_tcp,
    parse_block,
    uint,
)
from edgerm_transport_coap.streams import MAX_MESSAGE_BYTES, StreamEnded, open_tcp, open_websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .raw import PATIENCE_S, Sessions, listening

pytestmark = pytest.mark.anyio

CORE: Options = [(URI_PATH, b".well-known"), (URI_PATH, b"core")]


@pytest.mark.parametrize("scheme", ["coap+tcp", "coap+ws"])
async def test_a_greeting_and_signals(scheme: str) -> None:
    async with listening(url=f"{scheme}://127.0.0.1:0") as listener:
        port = int(listener.url.rpartition(":")[2])
        if scheme == "coap+tcp":
            stream = await open_tcp("127.0.0.1", port)
        else:
            stream = await open_websocket("127.0.0.1", port, local=True)
        assert stream.local
        assert stream.peer == listener.url
        stream.greet()
        stream.write(Message(EMPTY))
        stream.write(Message(PING, token=b"p"))
        stream.write(Message(GET, CORE, token=b"g"))
        with anyio.fail_after(PATIENCE_S):
            csm = await stream.read_any()
            assert (csm.code, csm.option(2), csm.option(4)) == (CSM, uint(MAX_MESSAGE_BYTES), b"")
            pong = await stream.read_any()
            assert (pong.code, pong.token) == (PONG, b"p")
            answer = await stream.read_any()
            assert (answer.code, answer.token) == (CONTENT, b"g")
            stream.write(Message(RELEASE))
            with pytest.raises(StreamEnded):
                await stream.read()
        await stream.close()
        await stream.close()


@pytest.mark.parametrize(
    "data",
    [
        encode_tcp(Message(GET, CORE)),  # Before the CSM.
        encode_tcp(Message(CSM, [(1, b"")])),  # A critical option that nobody knows.
        encode_tcp(Message(CSM)) + encode_tcp(Message(0xE7)),  # A signal that nobody knows.
        encode_tcp(Message(CSM)) + b"\xf0\xff\xff\xff\xff",  # 4 GiB.
        encode_tcp(Message(CSM)) + b"\x09\x01" + bytes(9),  # A token of 9 bytes.
        encode_tcp(Message(CSM)) + b"\x10\x01\xff",  # A payload marker without payload.
    ],
)
async def test_whoever_breaks_the_protocol_is_told_and_cut(data: bytes) -> None:
    async with listening(url="coap+tcp://127.0.0.1:0") as listener:
        stream = await open_tcp("127.0.0.1", int(listener.url.rpartition(":")[2]))
        stream._writer.write(data)  # type: ignore[attr-defined]
        with anyio.fail_after(PATIENCE_S):
            assert (await stream.read_any()).code == CSM
            assert (await stream.read_any()).code == ABORT
            with pytest.raises(StreamEnded):
                await stream.read_any()
        await stream.close()


@pytest.mark.parametrize(
    ("code", "bad_csm_option"), [(CSM, uint(3)), (PING, None), (PONG, None), (RELEASE, None)]
)
async def test_a_signal_with_an_unknown_critical_option_ends_the_connection(
    code: int, bad_csm_option: bytes | None
) -> None:
    """RFC 8323, sections 5.2 and 5.6; elective ones are ignored."""
    async with listening(url="coap+tcp://127.0.0.1:0") as listener:
        stream = await open_tcp("127.0.0.1", int(listener.url.rpartition(":")[2]))
        stream.write(Message(CSM, [(2, uint(1152)), (2048, b"")]))
        stream.write(Message(PING, [(2, b""), (2048, b"")], token=b"p"))
        stream.write(Message(code, [(3, b"")]))
        with anyio.fail_after(PATIENCE_S):
            assert (await stream.read_any()).code == CSM
            assert (await stream.read_any()).code == PONG
            abort = await stream.read_any()
        assert (abort.code, abort.option(2)) == (ABORT, bad_csm_option)
        await stream.close()


@pytest.mark.usefixtures("unhurried")
async def test_a_peer_that_takes_little_is_sent_no_more(sessions: Sessions) -> None:
    """RFC 8323, section 5.3.1: whatever the answer is, an opening, an exchange or a reason."""
    async with listening(sessions, url="coap+tcp://127.0.0.1:0") as listener:
        stream = await open_tcp("127.0.0.1", int(listener.url.rpartition(":")[2]))
        limit = 200
        stream.write(Message(CSM, [(2, uint(limit))]))
        with anyio.fail_after(PATIENCE_S):
            assert (await stream.read_any()).code == CSM
        stream.write(Message(POST, [(URI_PATH, b"e"), (URI_QUERY, b"m=4096")], b"x", token=b"12345678"))
        opened = await sessions.next()
        assert await opened.receive() == b"x"
        await opened.send(bytes(range(250)) * 4)
        with anyio.fail_after(PATIENCE_S):
            answer = await stream.read_any()
        assert len(encode_tcp(answer)) <= limit
        assert answer.option(MORE) is not None
        path = [(URI_PATH, value) for number, value in answer.options if number == LOCATION_PATH]
        got = b""
        more = True
        while more:
            want = block(len(got) // 64, False, 2 if got else 6)
            stream.write(Message(POST, [*path, (URI_QUERY, b"1"), (BLOCK2, want)], token=b"12345678"))
            with anyio.fail_after(PATIENCE_S):
                answer = await stream.read_any()
            assert len(encode_tcp(answer)) <= limit
            got += answer.payload
            _, more, _ = parse_block(answer.option(BLOCK2) or b"")
        assert got == bytes(range(250)) * 4
        await opened.close("x" * 500)
        stream.write(Message(POST, [*path, (URI_QUERY, b"2")], token=b"12345678"))
        with anyio.fail_after(PATIENCE_S):
            answer = await stream.read_any()
        assert answer.code == NOT_FOUND
        assert len(encode_tcp(answer)) <= limit
        await stream.close()


async def test_a_peer_that_takes_next_to_nothing_is_told(sessions: Sessions) -> None:
    async with listening(sessions, url="coap+tcp://127.0.0.1:0") as listener:
        stream = await open_tcp("127.0.0.1", int(listener.url.rpartition(":")[2]))
        stream.write(Message(CSM, [(2, uint(100))]))
        with anyio.fail_after(PATIENCE_S):
            assert (await stream.read_any()).code == CSM
            assert (await stream.read_any()).code == ABORT
        await stream.close()


async def test_text_and_other_paths_are_refused_on_websocket() -> None:
    async with listening(url="coap+ws://127.0.0.1:0") as listener:
        base = listener.url.removeprefix("coap+")
        async with connect(f"{base}/.well-known/coap", subprotocols=["coap"], proxy=None) as websocket:  # type: ignore[list-item]
            await websocket.send("text")
            assert (await websocket.recv())[1] == CSM
            assert (await websocket.recv())[1] == ABORT
        with pytest.raises(InvalidStatus, match="404"):
            await connect(f"{base}/elsewhere", subprotocols=["coap"], proxy=None)  # type: ignore[list-item]
        with pytest.raises(InvalidStatus, match="403"):
            await connect(
                f"{base}/.well-known/coap",
                subprotocols=["coap"],  # type: ignore[list-item]
                origin="http://evil.example",  # type: ignore[arg-type]
                proxy=None,
            )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120), st.booleans())
def test_random_bytes_kill_nothing_and_are_not_logged(
    caplog: pytest.LogCaptureFixture, data: bytes, greeted: bool
) -> None:
    async def send() -> None:
        async with listening(url="coap+tcp://127.0.0.1:0") as listener:
            port = int(listener.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((encode_tcp(Message(CSM)) if greeted else b"") + data)
            writer.write_eof()
            stream = await open_tcp("127.0.0.1", port)
            stream.greet()
            stream.write(Message(GET, CORE))
            assert (await stream.read()).code == CONTENT
            await stream.close()
            writer.close()

    with caplog.at_level(logging.INFO):
        anyio.run(send)
    assert not caplog.records
