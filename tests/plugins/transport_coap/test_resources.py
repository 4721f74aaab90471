"""Which request means what, and which code says what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
from edgerm_transport_coap.config import SESSION_TIMEOUT_S, CoapConfig
from edgerm_transport_coap.message import (
    ACCEPT,
    ACK,
    BLOCK1,
    BLOCK2,
    CON,
    CONTENT_FORMAT,
    DELETE,
    EMPTY,
    GET,
    LOCATION_PATH,
    MAX_AGE,
    MORE,
    NON,
    POST,
    PROXY_URI,
    RST,
    SIZE1,
    URI_HOST,
    Options,
    encode_datagram,
    parse_uint,
    uint,
)

from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_core.messages import Heartbeat, HeartbeatAck

from .raw import PATIENCE_S, Sessions, block1, block2, listening, pass_time, peer_of

pytestmark = pytest.mark.anyio

PUT = 3

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/protocol/coap.md"


async def test_the_example_of_the_document_is_true() -> None:
    lines = re.findall(r"^([<>]) ([0-9a-f ]+)$", DOCUMENT.read_text(), re.MULTILINE)
    (_, up), (_, down) = lines
    request, example = bytes.fromhex(up), bytes.fromhex(down)
    assert (len(request), len(example)) == (21, 8)

    async def acknowledge(connection: Connection) -> None:
        while True:
            for message in decode_batch(await connection.receive()):
                assert message == Heartbeat()
            await connection.send(encode(HeartbeatAck()))

    async with listening(acknowledge) as listener, peer_of(listener) as peer:
        name = await peer.open()
        for number in range(1, 7):
            await peer.ask(POST, f"e/{name}?{number}")
        peer.send_bytes(request.replace(b"TheName1", name.encode()))
        answer = await peer.receive()
        answer.mid = int.from_bytes(example[2:4], "big")
        assert encode_datagram(answer) == example


async def test_resources_are_listed() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        answer = await peer.ask(GET, ".well-known/core")
        assert (answer.code, answer.payload) == (0x45, b"</e>;ct=63,</b>;ct=42")
        assert answer.option(CONTENT_FORMAT) == b"\x28"


@pytest.mark.parametrize(
    ("method", "path", "options", "payload", "code"),
    [
        (POST, "e/short?1", [], b"", "4.00"),
        (POST, "e/notanam!?1", [], b"", "4.00"),
        (POST, "e/{session}", [], b"", "4.00"),
        (POST, "e/{session}?x", [], b"", "4.00"),
        (POST, "e/{session}?-1", [], b"", "4.00"),
        (POST, "e/{session}?1&2", [], b"", "4.00"),
        (POST, "e/{session}?99999999999", [], b"", "4.00"),
        (POST, "e/{session}?1", [(BLOCK1, b"\x07")], b"", "4.00"),  # Reserved for streams.
        (POST, "e/{session}?1", [(BLOCK2, b"\x07")], b"", "4.00"),
        (POST, "e?m=63", [], b"", "4.00"),
        (POST, "e?m=65537", [], b"", "4.00"),
        (POST, "e?m=x", [], b"", "4.00"),
        (POST, "e?t=", [], b"", "4.00"),
        (POST, "e?t=99999999", [], b"", "4.00"),
        (GET, "b/{session}/short", [], b"", "4.00"),
        (POST, "e/{session}?1", [(9, b"x")], b"", "4.02"),  # OSCORE, which is critical.
        (POST, "e/{session}?1", [(2049, b"")], b"", "4.02"),
        (POST, "e/{session}?1", [(BLOCK1, b"1234")], b"", "4.02"),
        (POST, "e/{session}?1", [(BLOCK2, b"1234")], b"", "4.02"),
        (POST, "e/{session}?1", [(ACCEPT, b"\0\0\x3f")], b"", "4.02"),
        (POST, "e/{session}?1", 2 * [(ACCEPT, uint(63))], b"", "4.02"),
        (POST, "e/{session}?1", 2 * [(URI_HOST, b"master")], b"", "4.02"),
        (POST, "e/{session}?1", [*block1(0, False), *block1(0, False)], b"", "4.02"),
        (GET, "b/{session}/" + 43 * "A", [*block2(0), *block2(1)], b"", "4.02"),
        (POST, "e/AAAAAAAA?1", [], b"", "4.04"),
        (GET, "e/AAAAAAAA", [], b"", "4.04"),
        (GET, "b/AAAAAAAA/" + 43 * "A", [], b"", "4.04"),
        (GET, "b/{session}/AAAAAAAA", [], b"", "4.04"),
        (GET, "nothing", [], b"", "4.04"),
        (GET, "e/{session}/more", [], b"", "4.04"),
        (GET, "e", [], b"", "4.05"),
        (PUT, "e/{session}", [], b"", "4.05"),
        (POST, "b/{session}/" + 43 * "A", [], b"", "4.05"),
        (POST, ".well-known/core", [], b"", "4.05"),
        (GET, ".well-known/core", [(ACCEPT, uint(60))], b"", "4.06"),
        (POST, "e/{session}?1", [(ACCEPT, uint(60))], b"", "4.06"),
        (GET, "b/{session}/" + 43 * "A", [(ACCEPT, uint(63))], b"", "4.06"),
        (POST, "e/{session}?1", block1(1, True), bytes(1024), "4.08"),
        (POST, "e/{session}?5", [], b"", "4.09"),
        (POST, "e/{session}?0", [], b"", "4.09"),
        (POST, "e/{session}?1", [(CONTENT_FORMAT, uint(60))], b"x", "4.15"),
        (POST, "e", [(CONTENT_FORMAT, uint(0))], b"x", "4.15"),
        (GET, "e", [(PROXY_URI, b"coap://elsewhere")], b"", "5.05"),
        (POST, "e?m=64&t=60&later=1", [(ACCEPT, uint(63)), (2050, b"elective")], b"", "2.01"),
        (POST, "e/{session}?1", [(CONTENT_FORMAT, uint(63))], b"", "2.04"),
        # What is elective counts the first time, and not at all if it is too long.
        (POST, "e/{session}?1", [(CONTENT_FORMAT, uint(n)) for n in (63, 60)], b"x", "2.04"),
        (POST, "e/{session}?1", [(CONTENT_FORMAT, b"\0\0\x3c")], b"x", "2.04"),
        (DELETE, "e/{session}", [], b"", "2.02"),
        (DELETE, "e/AAAAAAAA", [], b"", "2.02"),
    ],
)
async def test_codes(method: int, path: str, options: Options, payload: bytes, code: str) -> None:
    async with listening() as listener, peer_of(listener) as peer:
        session = await peer.open()
        answer = await peer.ask(method, path.format(session=session), options, payload)
        assert f"{answer.code >> 5}.{answer.code & 31:02}" == code


async def test_an_unknown_critical_option_of_a_non_confirmable_request_is_rejected() -> None:
    """RFC 7252, section 5.4.1: it is not answered 4.02."""
    async with listening() as listener, peer_of(listener) as peer:
        request = peer.request(POST, "e", [(2049, b"")])
        request.kind = NON
        peer.send(request)
        rejection = await peer.receive()
        assert (rejection.kind, rejection.code, rejection.mid) == (RST, EMPTY, request.mid)
        assert not listener.resources.sessions


@pytest.mark.usefixtures("unhurried")
async def test_an_opening_gets_a_session_and_the_answer_to_its_frame() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        answer = await peer.ask(POST, "e", payload=b"hello")
        assert (answer.kind, answer.code, answer.payload) == (ACK, 0x41, b"hello")
        e, name = [value for number, value in answer.options if number == LOCATION_PATH]
        assert e == b"e"
        assert len(name) == 8
        assert await peer.open() != name.decode()


@pytest.mark.usefixtures("unhurried")
async def test_an_opening_that_comes_twice_opens_once(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        opening = peer.request(POST, "e", payload=b"hello")
        for _ in range(3):
            peer.send(opening)
        connection = await sessions.next()
        await connection.send(b"welcome")
        names = {(await peer.receive()).option(LOCATION_PATH) for _ in range(1)}
        peer.send(opening)
        again = await peer.receive()
        assert again.payload == b"welcome"
        names.add(again.option(LOCATION_PATH))
        assert len(names) == 1
        assert len(listener.resources.sessions) == 1
        assert await connection.receive() == b"hello"


async def test_an_opening_may_come_in_blocks(sessions: Sessions) -> None:
    frame = bytes(range(256)) * 5
    async with listening(sessions) as listener, peer_of(listener) as peer:
        first = await peer.ask(POST, "e", block1(0, True), frame[:1024])
        assert first.code == 0x5F
        last = await peer.ask(POST, "e", block1(1, False), frame[1024:])
        assert last.code == 0x41
        assert last.option(BLOCK1) == block1(1, False)[0][1]
        assert await (await sessions.next()).receive() == frame


async def test_a_frame_that_is_too_long_ends_the_session_and_says_how_long_it_may_be() -> None:
    config = CoapConfig(max_message_bytes=100)
    async with listening(config=config) as listener, peer_of(listener) as peer:
        answer = await peer.ask(POST, "e", payload=bytes(101))
        assert answer.code == 0x8D
        assert parse_uint(answer.option(SIZE1) or b"") == 100
        session = await peer.open()
        assert (await peer.ask(POST, f"e/{session}?1", payload=bytes(101))).code == 0x8D
        ended = await peer.ask(POST, f"e/{session}?1")
        assert ended.code == 0x84
        assert b"larger than the 100 bytes" in ended.payload


async def test_blocks_that_get_too_long_are_refused_before_they_are_all_there() -> None:
    config = CoapConfig(max_message_bytes=2000)
    async with listening(config=config) as listener, peer_of(listener) as peer:
        session = await peer.open()
        assert (await peer.ask(POST, f"e/{session}?1", block1(0, True), bytes(1024))).code == 0x5F
        assert (await peer.ask(POST, f"e/{session}?1", block1(1, True), bytes(1024))).code == 0x8D


async def test_a_session_too_many_is_told_when_to_come_back(sessions: Sessions) -> None:
    config = CoapConfig(max_sessions=2)
    async with listening(sessions, config) as listener, peer_of(listener) as peer:
        for _ in range(2):
            session = await peer.open()
            await peer.ask(POST, f"e/{session}?1")
        answer = await peer.ask(POST, "e")
        assert answer.code == 0xA3
        assert parse_uint(answer.option(MAX_AGE) or b"") == 10


async def test_sessions_that_were_never_used_make_room_for_others(sessions: Sessions) -> None:
    """Openings with forged addresses must not keep anybody out."""
    config = CoapConfig(max_sessions=2)
    async with listening(sessions, config) as listener, peer_of(listener) as peer:
        used = await peer.open()
        assert (await peer.ask(POST, f"e/{used}?1")).code == 0x44
        unused = await peer.open()
        newer = await peer.open()
        assert (await peer.ask(POST, f"e/{unused}?1")).code == 0x84
        for session, number in ((used, 2), (newer, 1)):
            assert (await peer.ask(POST, f"e/{session}?{number}")).code == 0x44


async def test_deleting_ends_the_session_after_what_came_before(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        session = await peer.open()
        await peer.ask(POST, f"e/{session}?1", [(MORE, b"")], payload=b"last words")
        assert (await peer.ask(DELETE, f"e/{session}", payload=b"battery\nempty")).code == 0x42
        connection = await sessions.next()
        assert await connection.receive() == b"last words"
        with pytest.raises(ConnectionClosed, match=r"battery\?empty"):
            await connection.receive()
        assert (await peer.ask(DELETE, f"e/{session}")).code == 0x42
        assert (await peer.ask(POST, f"e/{session}?2")).code == 0x84


async def test_silent_sessions_are_forgotten(sessions: Sessions) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        silent, slow, lively = await peer.open(), await peer.open("t=100"), await peer.open()
        pass_time(SESSION_TIMEOUT_S / 2)
        await peer.ask(POST, f"e/{lively}?1")
        pass_time(SESSION_TIMEOUT_S / 2)
        connection = await sessions.next()
        with anyio.fail_after(PATIENCE_S), pytest.raises(ConnectionClosed, match=r"silent for 300 s"):
            await connection.receive()
        assert (await peer.ask(POST, f"e/{silent}?1")).code == 0x84
        assert (await peer.ask(POST, f"e/{lively}?2")).code == 0x44
        assert (await peer.ask(POST, f"e/{slow}?1")).code == 0x44


@pytest.mark.parametrize("kind", [CON, NON])
async def test_an_address_that_nobody_has_proven_gets_at_most_three_times_what_it_sent(
    sessions: Sessions, kind: int
) -> None:
    """RFC 7252, section 11.3: whatever is asked, and whatever waits, for an opening or at a new address."""
    async with listening(sessions) as listener, peer_of(listener) as peer, peer_of(listener) as attacker:
        session = await peer.open("m=65536")
        connection = await sessions.next()
        await connection.send(bytes(5000))
        for path, method in (
            ("e", POST),
            (".well-known/core", GET),
            (f"e/{session}?1", POST),
            (f"e/{session}?1", POST),
            (f"e/{session}", GET),
            ("e/AAAAAAAA?1", POST),
            ("b/AAAAAAAA/x", GET),
        ):
            attacker.sent_bytes = attacker.received_bytes = 0
            request = attacker.request(method, path, payload=b"" if method == GET else b"\x81\x03")
            request.kind = kind
            attacker.send(request)
            sent = attacker.sent_bytes
            if path == "e":
                await (await sessions.next()).send(bytes(900))
            with anyio.move_on_after(0.4):
                while True:
                    await attacker.receive()
            assert 0 < attacker.received_bytes <= 3 * sent, path
