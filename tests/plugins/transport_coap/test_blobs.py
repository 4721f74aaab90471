"""Blobs block by block, read through the session's own connection."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest
from edgerm_transport_coap.blobs import Window
from edgerm_transport_coap.blocks import Block
from edgerm_transport_coap.config import BLOB_ANSWER_WAIT_S, BLOB_WINDOWS, CoapConfig
from edgerm_transport_coap.message import (
    ACK,
    BLOCK2,
    CON,
    CONTENT_FORMAT,
    EMPTY,
    ETAG,
    GET,
    POST,
    RST,
    SIZE2,
    Message,
    parse_block,
    parse_uint,
)

from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_core.messages import BlobData, BlobGet, Failed, Heartbeat, HeartbeatAck, RefusalCode

from .raw import Peer, block2, listening, peer_of

pytestmark = pytest.mark.anyio

BLOB = random.Random(5).randbytes(5000)
HASH = hashlib.sha256(BLOB).digest()
NAME = base64.urlsafe_b64encode(HASH).decode().rstrip("=")


class Master:
    """Answers as a master does: pieces that fit into a frame, and heartbeats."""

    def __init__(self) -> None:
        self.gets: list[BlobGet] = []

    async def __call__(self, connection: Connection) -> None:
        try:
            while True:
                answers: list[bytes] = []
                for message in decode_batch(await connection.receive()):
                    if isinstance(message, Heartbeat):
                        answers.append(encode(HeartbeatAck()))
                    elif isinstance(message, BlobGet) and message.blob == HASH:
                        self.gets.append(message)
                        length = min(message.length, connection.max_message_bytes - 60)
                        data = BLOB[message.offset : message.offset + length]
                        answers.append(
                            encode(
                                BlobData(message.request_id, message.blob, message.offset, len(BLOB), data)
                            )
                        )
                    elif isinstance(message, BlobGet):
                        answers.append(encode(Failed(message.request_id, RefusalCode.NOT_FOUND, "no")))
                await connection.send(b"".join(answers))
        except ConnectionClosed:
            pass


async def fetch(peer: Peer, session: str, name: str, exponent: int, first: int = 0) -> bytes:
    got = b""
    number = first
    while True:
        answer = await peer.ask(GET, f"b/{session}/{name}", block2(number, exponent))
        assert answer.code == 0x45, hex(answer.code)
        assert answer.option(ETAG) == HASH[:8]
        found, more, size = parse_block(answer.option(BLOCK2) or b"")
        assert (found, size) == (number, exponent)
        got += answer.payload
        if not more:
            return got
        number += 1


@pytest.mark.parametrize(("exponent", "frame_bytes"), [(6, 65536), (6, 1024), (2, 256), (0, 64)])
async def test_a_blob_comes_whole_in_blocks_of_any_size(exponent: int, frame_bytes: int) -> None:
    master = Master()
    async with listening(master) as listener, peer_of(listener) as peer:
        session = await peer.open(f"m={frame_bytes}")
        assert await fetch(peer, session, NAME, exponent) == BLOB
        assert len(master.gets) <= len(BLOB) // min(frame_bytes - 60, 16 << 10) + 2


async def test_a_fetch_goes_on_where_it_stopped_in_another_session() -> None:
    async with listening(Master()) as listener, peer_of(listener) as one, peer_of(listener) as other:
        session = await one.open()
        first = await one.ask(GET, f"b/{session}/{NAME}", block2(0))
        assert (await other.ask(GET, ".well-known/core")).code == 0x45
        rest = await fetch(other, await other.open(), NAME, 6, first=1)
        assert first.payload + rest == BLOB


async def test_a_new_address_is_pinged_before_a_block_goes_there() -> None:
    """So that nobody can have blobs sent to somebody else."""
    async with listening(Master()) as listener, peer_of(listener) as old, peer_of(listener) as new:
        session = await old.open()
        request = new.request(GET, f"b/{session}/{NAME}", block2(0))
        new.send(request)
        lost = await new.receive()
        # Not even acknowledged before the address is proven, so that it is asked for again.
        assert await new.nothing_comes(2 * BLOB_ANSWER_WAIT_S)
        new.send(request)
        ping = await new.receive()
        for each in (lost, ping):
            assert (each.kind, each.code) == (CON, EMPTY)
        new.send(Message(EMPTY, kind=RST, mid=lost.mid))
        assert await new.nothing_comes()
        new.send(Message(EMPTY, kind=RST, mid=ping.mid))
        answer = await new.receive()
        assert (answer.kind, answer.mid, answer.payload) == (ACK, request.mid, BLOB[:1024])
        assert (await new.ask(GET, f"b/{session}/{NAME}", block2(1))).payload == BLOB[1024:2048]


async def test_what_the_blocks_say_about_the_blob() -> None:
    async with listening(Master()) as listener, peer_of(listener) as peer:
        session = await peer.open()
        answer = await peer.ask(GET, f"b/{session}/{NAME}", [(SIZE2, b"")])
        assert answer.option(ETAG) == HASH[:8]
        assert answer.option(CONTENT_FORMAT) == b"\x2a"
        assert parse_uint(answer.option(SIZE2) or b"") == len(BLOB)
        assert parse_block(answer.option(BLOCK2) or b"") == (0, True, 6)
        unchanged = await peer.ask(GET, f"b/{session}/{NAME}", [(ETAG, HASH[:8])])
        assert (unchanged.code, unchanged.payload) == (0x43, b"")


async def test_a_short_name_will_do_once_a_block_has_been_given() -> None:
    async with listening(Master()) as listener, peer_of(listener) as peer:
        session = await peer.open()
        assert (await peer.ask(GET, f"b/{session}/{NAME[:8]}")).code == 0x84
        await peer.ask(GET, f"b/{session}/{NAME}", block2(0))
        assert await fetch(peer, session, NAME[:8], 6, first=1) == BLOB[1024:]


async def test_what_is_not_there_is_not_found() -> None:
    async with listening(Master()) as listener, peer_of(listener) as peer:
        session = await peer.open()
        assert (await peer.ask(GET, f"b/{session}/{'A' * 43}")).code == 0x84
        assert (await peer.ask(GET, f"b/{session}/{'!' * 43}")).code == 0x84
        assert (await peer.ask(GET, f"b/{session}/{NAME}", block2(5))).code == 0x80
        assert (await peer.ask(GET, f"b/{session}/{NAME}", block2(4))).payload == BLOB[4096:]


async def test_exchanges_go_on_beside_blobs() -> None:
    """The master's answer to a heartbeat and a piece of a blob may leave in one frame."""
    async with listening(Master()) as listener, peer_of(listener) as peer:
        session = await peer.open()
        requests: list[Message] = [
            peer.request(GET, f"b/{session}/{NAME}", block2(0)),
            peer.request(POST, f"e/{session}?1", payload=encode(Heartbeat())),
            peer.request(GET, f"b/{session}/{NAME}", block2(3)),
        ]
        for request in requests:
            peer.send(request)
        answers: dict[bytes, bytes] = {}
        while len(answers) < 3:
            answer = await peer.receive()
            answers[answer.token] = answer.payload
        assert [answers[request.token] for request in requests] == [
            BLOB[:1024],
            encode(HeartbeatAck()),
            BLOB[3072:4096],
        ]


async def test_a_piece_that_has_to_wait_is_not_lost() -> None:
    """A frame that waits is in its way where nothing is to be waited for."""

    async def serve(connection: Connection) -> None:
        assert connection.send_nowait(b"waits")
        try:
            while True:
                (get,) = decode_batch(await connection.receive())
                assert isinstance(get, BlobGet)
                piece = encode(BlobData(get.request_id, get.blob, 0, len(BLOB), BLOB[:900]))
                assert not connection.send_nowait(piece)
                await connection.send(piece)
        except ConnectionClosed:
            pass

    async with listening(serve) as listener, peer_of(listener) as peer:
        name = await peer.open()
        answer = await peer.ask(GET, f"b/{name}/{NAME}", block2(0, 4))
        assert answer.payload == BLOB[:256]
        assert (await peer.ask(POST, f"e/{name}?1")).payload == b"waits"


async def test_too_many_blocks_at_once_are_told_to_come_later() -> None:
    async def slow(connection: Connection) -> None:
        while True:
            await connection.receive()

    async with listening(slow, CoapConfig()) as listener, peer_of(listener) as peer:
        session = await peer.open()
        for number in range(5):
            peer.send(peer.request(GET, f"b/{session}/{NAME}", block2(number)))
        assert (await peer.receive()).code == 0xA3


async def test_a_session_that_has_ended_gives_no_blobs() -> None:
    async def close_at_once(connection: Connection) -> None:
        await connection.close("enough")

    async with listening(close_at_once) as listener, peer_of(listener) as peer:
        answer = await peer.ask(GET, f"b/{await peer.open()}/{NAME}", block2(0))
        assert answer.code == 0x84
        assert b"enough" in answer.payload


async def test_pieces_that_are_kept_are_limited() -> None:
    async with listening(Master()) as listener, peer_of(listener) as peer:
        for _ in range(BLOB_WINDOWS + 10):
            session = await peer.open()
            await peer.ask(GET, f"b/{session}/{NAME}", block2(0))
        assert len(listener.resources._windows._windows) == BLOB_WINDOWS


def test_a_window_covers_what_is_in_it_and_what_cannot_exist() -> None:
    window = Window(b"a", 1024, 3000, bytes(1024))
    assert window.covers(b"a", Block(1024, 1024))
    assert window.covers(b"a", Block(1088, 64))
    assert window.covers(b"a", Block(4096, 1024))
    assert not window.covers(b"a", Block(0, 1024))
    assert not window.covers(b"a", Block(2048, 1024))
    assert not window.covers(b"b", Block(1024, 1024))
