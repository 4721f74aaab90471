"""The CoAP client of boards against a peer that the test plays, datagram by datagram."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

import pytest

from tests.micropython.conftest import Interpreter

CON, NON, ACK, RST = range(4)
CONTENT: Final = 0x45
WAIT_S = 20.0

CLIENT = """
import time
from edgerm import coap
client = coap.Client(200, 64, 2000)
client.connect("127.0.0.1", {port})
# The clock stands still until the script moves it: a test that is slow to answer is asked no second time.
clock = 0
def now():
    return clock
def ask(confirmable=True, **options):
    at = client.begin(coap.POST, ("e", "sessions"), ("12",), **options)
    client.tx[at:at + 2] = b"hi"
    client.send(now(), at + 2, confirmable)
def until(event):
    while True:
        got = client.poll(now())
        if got == event:
            return
        assert not got, got
        time.sleep_ms(1)
def until_due():
    # Nothing has come by then; return what that means.
    global clock
    clock = client.due
    return client.poll(now())
def until_heard():
    # Something comes that is no event.
    before = client.bytes_down
    while client.bytes_down == before:
        assert not client.poll(now())
        time.sleep_ms(1)
"""


class Peer:
    """The other end."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(WAIT_S)

    def begin(self, script: str) -> None:
        """Run the client's script beside the test."""
        port = self._socket.getsockname()[1]
        self._process = self._interpreter.popen(CLIENT.format(port=port) + script)

    def hear(self) -> bytes:
        data, self._client = self._socket.recvfrom(2048)
        return data

    def say(self, kind: int, code: int, mid: bytes, token: bytes = b"", rest: bytes = b"") -> None:
        message = bytes([0x40 | kind << 4 | len(token), code]) + mid + token + rest
        self._socket.sendto(message, self._client)

    def printed(self) -> str:
        """Wait for the script's end and return what it printed."""
        out, _ = self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == 0
        return out.strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._socket.close()


@pytest.fixture
def peer(interpreter: Interpreter) -> Iterator[Peer]:
    peer = Peer(interpreter)
    yield peer
    peer.close()


def parts(message: bytes) -> tuple[int, bytes, bytes]:
    """Return type, message id and token."""
    return message[0] >> 4 & 3, message[2:4], message[4 : 4 + (message[0] & 15)]


def test_a_request_is_what_rfc_7252_says_and_its_answer_is_understood(peer: Peer) -> None:
    peer.begin(
        "ask(block=0x12); until(coap.ANSWER)\n"
        "print(client.code, client.data[client.payload:], client.block2,"
        " client.max_age, client.more, client.location)"
    )
    request = peer.hear()
    kind, mid, token = parts(request)
    assert (kind, request[1], len(token)) == (CON, 2, 4)
    # Uri-Path e, Uri-Path sessions, Uri-Query 12, Block2 0x12, payload.
    assert request[8:] == b"\xb1e\x08sessions\x4212\x81\x12\xffhi"
    # Location-Path (8), Max-Age (14), Block2 (23), 65000 (its distance in two bytes), payload.
    options = b"\x83Ab-" + b"\x61\x07" + b"\x91\x1a" + b"\xe0" + (65000 - 23 - 269).to_bytes(2, "big")
    peer.say(ACK, CONTENT, mid, token, options + b"\xffdown")
    assert peer.printed() == f"{CONTENT} b'down' 26 7 True b'Ab-'"


def test_an_unanswered_request_is_sent_again_as_the_same_message_and_less_and_less_often(
    peer: Peer,
) -> None:
    peer.begin(
        "ask(); pauses = [client.due]\n"
        "for _ in range(3):\n"
        "    before = client.due\n"
        "    assert not until_due()\n"
        "    pauses.append(client.due - before)\n"
        "assert 2000 <= pauses[0] <= 3000 and pauses == [pauses[0] << n for n in range(4)], pauses\n"
        "until(coap.ANSWER)"
    )
    messages = {peer.hear() for _ in range(4)}
    assert len(messages) == 1
    _, mid, token = parts(messages.pop())
    peer.say(ACK, CONTENT, mid, token)
    assert peer.printed() == ""


def test_after_four_repetitions_it_gives_up(peer: Peer) -> None:
    peer.begin(
        "ask()\n"
        "for _ in range(4): assert not until_due()\n"
        "assert until_due() == coap.LOST; print(client.waiting)"
    )
    for _ in range(5):
        peer.hear()
    assert peer.printed() == "False"


def test_what_is_not_confirmable_is_sent_once(peer: Peer) -> None:
    peer.begin("ask(False); assert until_due() == coap.LOST; client.again(now(), True); until(coap.ANSWER)")
    first = peer.hear()
    again = peer.hear()
    assert parts(first)[0] == NON
    assert parts(again)[0] == CON
    assert first[4:] == again[4:]
    peer.say(ACK, CONTENT, *parts(again)[1:])
    assert peer.printed() == ""


def test_an_answer_may_come_later_and_is_acknowledged_each_time_it_comes(peer: Peer) -> None:
    peer.begin(
        "ask(); until_heard(); clock += 29999; assert not client.poll(now())\n"
        "client.sock.sendto(b'waiting', client._address)\n"
        "until(coap.ANSWER); print(client.data[client.payload:])\n"
        "until_heard()"
    )
    _, mid, token = parts(peer.hear())
    peer.say(ACK, 0, mid)
    assert peer.hear() == b"waiting"
    peer.say(CON, CONTENT, b"\x77\x01", token, b"\xfflate")
    assert peer.hear() == b"\x60\x00\x77\x01"
    peer.say(CON, CONTENT, b"\x77\x01", token, b"\xfflate")
    assert peer.hear() == b"\x60\x00\x77\x01"
    assert peer.printed() == "b'late'"


def test_what_nobody_asked_for_is_reset(peer: Peer) -> None:
    peer.begin("ask(); until(coap.ANSWER)")
    _, mid, token = parts(peer.hear())
    peer.say(CON, CONTENT, b"\x77\x02", b"else", b"\xffno")
    assert peer.hear() == b"\x70\x00\x77\x02"
    peer.say(CON, 0, b"\x77\x03")  # "CoAP ping"
    assert peer.hear() == b"\x70\x00\x77\x03"
    peer.say(CON, 1, b"\x77\x04", b"", b"\xb1x")  # A request: boards serve nothing.
    assert peer.hear() == b"\x70\x00\x77\x04"
    peer.say(NON, CONTENT, mid, token)
    assert peer.printed() == ""


def test_a_reset_ends_the_waiting(peer: Peer) -> None:
    peer.begin("ask(); until(coap.LOST)")
    peer.say(RST, 0, parts(peer.hear())[1])
    assert peer.printed() == ""


def test_an_option_that_must_be_understood_and_is_not_makes_the_answer_none(peer: Peer) -> None:
    peer.begin("ask(); until(coap.LOST)")
    _, _, token = parts(peer.hear())
    peer.say(CON, CONTENT, b"\x77\x05", token, b"\xd1\x0c\x01\xffx")  # 25: critical.
    assert peer.hear() == b"\x70\x00\x77\x05"
    assert peer.printed() == ""


def test_the_bell_rings_until_the_session_is_over(peer: Peer) -> None:
    peer.begin(
        "ask(observe=True); until(coap.ANSWER); print(client.observed)\n"
        "until(coap.BELL); ask(); until(coap.BELL); until(coap.ANSWER)"
    )
    first = peer.hear()
    assert first[8:10] == b"\x60\x51"  # Observe, empty, then Uri-Path.
    _, mid, bell = parts(first)
    peer.say(ACK, CONTENT, mid, bell, b"\x61\x01\xff0")
    peer.say(NON, CONTENT, b"\x77\x06", bell, b"\x61\x02\xff9")
    _, mid, token = parts(peer.hear())
    peer.say(CON, CONTENT, b"\x77\x07", bell, b"\x61\x03\xff9")
    assert peer.hear() == b"\x60\x00\x77\x07"
    peer.say(ACK, CONTENT, mid, token)
    assert peer.printed() == "True"


def test_no_datagram_whatever_is_in_it_harms(interpreter: Interpreter) -> None:
    script = """
import random
from edgerm import coap, now
random.seed(2)
client = coap.Client(200, 64, 2000)
client.connect("127.0.0.1", 9)
at = client.begin(coap.POST, ("e",))
client.send(now(), at, True)
token = bytes(client.tx[4:8])
for _ in range(20000):
    data = bytes([random.getrandbits(8) for _ in range(random.randrange(30))])
    if random.getrandbits(1):
        data = bytes([0x44 | random.getrandbits(2) << 4, 0x45]) + data[:2] + token + data[4:]
    client.waiting = True
    assert client._take(data, 0) in (0, coap.ANSWER, coap.LOST)
"""
    interpreter.run(script)
