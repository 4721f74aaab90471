"""The message layer: what is repeated, what is acknowledged, what is rejected, what is ignored."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket

import anyio
import pytest
from edgerm_transport_coap.config import ACK_RANDOM_FACTOR, MAX_DATAGRAM_BYTES, READ_BATCH
from edgerm_transport_coap.datagrams import DatagramRequest, Endpoint
from edgerm_transport_coap.message import (
    ACK,
    CHANGED,
    CON,
    CONTENT,
    EMPTY,
    GET,
    MORE,
    NON,
    POST,
    RST,
    TOO_LARGE,
    Message,
    encode_datagram,
)
from edgerm_transport_coap.request import ACKNOWLEDGED, REJECTED, TIMED_OUT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .raw import PATIENCE_S, Peer, Sessions, block1, listening, pass_time, peer_of

pytestmark = pytest.mark.anyio


async def test_a_ping_is_answered_with_a_reset() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        peer.send(Message(EMPTY, mid=77))
        pong = await peer.receive()
        assert (pong.kind, pong.code, pong.mid) == (RST, EMPTY, 77)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("4001", None),
        ("80017d34", None),
        ("50010001ff", None),
        ("40010001ff", "70000001"),
        ("4045000161", "70000001"),  # A confirmable answer that nobody has asked for.
        ("40450001", "70000001"),
        ("50450001", None),
        ("60450001", None),
        ("60000001", None),
        ("70000001", None),
        ("60020001b165", None),  # A request is never an acknowledgement.
    ],
)
async def test_what_is_no_request(data: str, answer: str | None) -> None:
    async with listening() as listener, peer_of(listener) as peer:
        peer.send_bytes(bytes.fromhex(data))
        if answer is None:
            assert await peer.nothing_comes()
        else:
            assert encode_datagram(await peer.receive()).hex() == answer


@pytest.mark.parametrize("url", ["coap://127.0.0.1:0", "coap://0.0.0.0:0"])
async def test_a_datagram_that_is_too_long_is_refused_instead_of_read_in_part(
    sessions: Sessions, url: str
) -> None:
    """The kernel cuts it off without a word: what is left would look like a shorter frame."""
    async with listening(sessions, url=url) as listener:
        peer = Peer(listener.url.replace("0.0.0.0", "127.0.0.1"))
        name = await peer.open("m=65536")
        connection = await sessions.next()
        fits = peer.request(POST, f"e/{name}?1", [(MORE, b"")])
        fits.payload = bytes(MAX_DATAGRAM_BYTES - len(encode_datagram(fits)) - 1)
        assert len(encode_datagram(fits)) == MAX_DATAGRAM_BYTES
        peer.send(fits)
        await peer.answer_to(fits)
        assert await connection.receive() == fits.payload
        for size in (MAX_DATAGRAM_BYTES, 60_000):
            answer = await peer.ask(POST, f"e/{name}?2", payload=bytes(size))
            assert (answer.kind, answer.code) == (ACK, TOO_LARGE)
            assert answer.options == block1(0, False)
        for message in (Message(CONTENT, [], bytes(3000)), Message(POST, [], bytes(3000), kind=ACK)):
            peer.send(message)
        peer.send_bytes(b"\xff" * 3000)
        answer = await peer.ask(POST, f"e/{name}?2", [(MORE, b"")], b"shorter")
        assert answer.code == CHANGED
        assert await connection.receive() == b"shorter"
        peer.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.integers(0, 1 << 30))
def test_random_datagrams_kill_nothing_and_are_not_logged(
    caplog: pytest.LogCaptureFixture, random_ones: list[bytes], seed: int
) -> None:
    """Random bytes, and requests of which some bytes are something else."""
    chance = random.Random(seed)

    async def flood() -> None:
        async with listening() as listener, peer_of(listener) as peer:
            name = await peer.open()
            for data in random_ones:
                peer.send_bytes(data)
                request = bytearray(
                    encode_datagram(peer.request(chance.choice((GET, POST)), f"e/{name}?1", payload=data))
                )
                for _ in range(chance.randrange(4)):
                    request[chance.randrange(len(request))] = chance.randrange(256)
                peer.send_bytes(bytes(request))
            assert (await peer.ask(GET, ".well-known/core")).code == CONTENT

    with caplog.at_level(logging.INFO):
        anyio.run(flood)
    assert not caplog.records


async def test_an_answer_leaves_from_the_address_that_was_asked() -> None:
    """Bound to all addresses, on a machine with several."""
    async with listening(url="coap://0.0.0.0:0") as listener:
        port = listener.url.rpartition(":")[2]
        for address in ("127.0.0.1", "127.0.0.2"):
            peer = Peer(f"coap://{address}:{port}")  # Connected: hears nobody else.
            assert (await peer.ask(GET, ".well-known/core")).code == CONTENT
            peer.close()


async def test_confirmable_messages_are_repeated_ever_more_slowly_then_given_up(
    sessions: Sessions,
) -> None:
    async with listening(sessions) as listener, peer_of(listener) as peer:
        endpoint = endpoint_of(listener)
        outcomes: list[str] = []
        remote = peer._sock.getsockname()
        message = Message(CONTENT, [], b"x", kind=CON, mid=5)
        endpoint.transmit(remote, message, 100, outcomes.append)
        assert (await peer.receive()).mid == 5
        for pause_s in (100, 200, 400, 800):
            pass_time(0.9 * pause_s)
            assert await peer.nothing_comes()
            pass_time((ACK_RANDOM_FACTOR - 0.9) * pause_s)
            assert (await peer.receive()).mid == 5
        assert outcomes == []
        pass_time(ACK_RANDOM_FACTOR * 1600)
        with anyio.fail_after(PATIENCE_S):
            while not outcomes:  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)
        assert outcomes == [TIMED_OUT]
        assert await peer.nothing_comes()


@pytest.mark.parametrize(("kind", "outcome"), [(ACK, ACKNOWLEDGED), (RST, REJECTED)])
async def test_one_confirmable_message_is_on_its_way_to_a_peer_at_a_time(kind: int, outcome: str) -> None:
    """NSTART is 1: RFC 7252, section 4.7."""
    async with listening() as listener, peer_of(listener) as peer, peer_of(listener) as other:
        endpoint = endpoint_of(listener)
        outcomes: list[str] = []
        remote = peer._sock.getsockname()
        for mid in (1, 2):
            endpoint.transmit(remote, Message(CONTENT, kind=CON, mid=mid), 60, outcomes.append)
        stopped = endpoint.transmit(remote, Message(CONTENT, kind=CON, mid=3), 60, outcomes.append)
        endpoint.transmit(other._sock.getsockname(), Message(CONTENT, kind=CON, mid=9), 60, outcomes.append)
        assert (await other.receive()).mid == 9
        assert (await peer.receive()).mid == 1
        assert await peer.nothing_comes()
        peer.send(Message(EMPTY, kind=kind, mid=1))
        assert (await peer.receive()).mid == 2
        endpoint.stop(stopped)
        endpoint.stop(stopped)
        peer.send(Message(EMPTY, kind=ACK, mid=2))
        assert await peer.nothing_comes()
        assert outcomes == [outcome, ACKNOWLEDGED]


async def test_others_get_their_turn_while_datagrams_pour_in() -> None:
    """However many wait in the socket, READ_BATCH of them are handled at a time."""
    handled = 0

    def on_request(request: object) -> None:
        nonlocal handled
        handled += 1

    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    endpoint = Endpoint(receiver, on_request)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3 * READ_BATCH):
            sender.sendto(encode_datagram(Message(GET)), receiver.getsockname())
    turns = []
    while handled < 3 * READ_BATCH:
        before = handled
        await asyncio.sleep(0)
        turns.append(handled - before)
    assert max(turns) == READ_BATCH
    endpoint.close()


async def test_a_bug_costs_one_datagram_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as listener, peer_of(listener) as peer:
        handle = endpoint_of(listener)._on_request

        def handle_badly(request: DatagramRequest) -> None:
            if request.message.payload == b"bad":
                raise RuntimeError("a bug")
            handle(request)

        endpoint_of(listener)._on_request = handle_badly
        for _ in range(3):
            peer.send(peer.request(POST, "e", payload=b"bad"))
        assert (await peer.ask(GET, ".well-known/core")).code == CONTENT
        assert len([record for record in caplog.records if record.levelno >= logging.INFO]) == 1


async def test_nothing_is_kept_of_requests_that_have_been_answered() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        name = await peer.open()
        number = 0

        async def ask_often(times: int) -> None:
            nonlocal number
            for _ in range(times):
                number += 1
                await peer.ask(POST, f"e/{name}?{number}", payload=b"x")
                await peer.ask(GET, ".well-known/core")

        await ask_often(200)
        gc.collect()
        before = len(gc.get_objects())
        await ask_often(1000)
        await anyio.sleep(0.2)
        gc.collect()
        assert len(gc.get_objects()) - before < 200
        assert not any(isinstance(kept, DatagramRequest) for kept in gc.get_objects())


async def test_after_closing_nothing_is_sent() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        endpoint = endpoint_of(listener)
        remote = peer._sock.getsockname()
        endpoint.close()
        endpoint.close()
        endpoint.send(remote, Message(CONTENT, kind=NON))
        endpoint.transmit(remote, Message(CONTENT, kind=CON), 1, lambda outcome: None)
        assert await peer.nothing_comes()


def endpoint_of(listener: object) -> Endpoint:
    carrier = getattr(listener, "_carrier")  # noqa: B009 - private to everybody else
    assert isinstance(carrier, Endpoint)
    return carrier
