"""Requests over UDP to a master that is late, silent, somewhere else or not one at all."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest
from edgerm_transport_coap.carrier import CarrierLost
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.datagram_carrier import DatagramCarrier, connected_socket
from edgerm_transport_coap.message import (
    ACK,
    CHANGED,
    CON,
    EMPTY,
    NON,
    POST,
    RST,
    URI_PATH,
    Message,
    decode_datagram,
    encode_datagram,
)

from .raw import PATIENCE_S

pytestmark = pytest.mark.anyio


class Server:
    """A UDP socket that answers as the test says."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(("127.0.0.1", 0))
        self.ports: list[int] = []

    def carrier(self, **config: float) -> DatagramCarrier:
        sock = connected_socket(socket.AF_INET, self._sock.getsockname())
        return DatagramCarrier(sock, True, CoapConfig(**{"ack_timeout_s": 0.04, **config}))  # type: ignore[arg-type]

    async def receive(self) -> Message:
        with anyio.fail_after(PATIENCE_S):
            data, self._peer = await self._loop.sock_recvfrom(self._sock, 2048)
        self.ports.append(self._peer[1])
        return decode_datagram(data)

    def send(self, message: Message) -> None:
        self._sock.sendto(encode_datagram(message), self._peer)

    def close(self) -> None:
        self._sock.close()


async def ask(carrier: DatagramCarrier, answers: list[Message], confirmable: bool = True) -> None:
    answers.append(await carrier.request(POST, [(URI_PATH, b"e")], b"x", confirmable=confirmable))


async def test_a_lost_request_is_sent_again_and_answered_once() -> None:
    server = Server()
    carrier = server.carrier()
    answers: list[Message] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ask, carrier, answers)
        first, second = await server.receive(), await server.receive()
        assert (first.mid, first.token) == (second.mid, second.token)
        for _ in range(2):
            server.send(Message(CHANGED, [], b"y", kind=ACK, mid=first.mid, token=first.token))
    assert [answer.payload for answer in answers] == [b"y"]
    await carrier.close()
    server.close()


async def test_a_separate_answer_is_acknowledged_and_a_late_copy_rejected() -> None:
    server = Server()
    carrier = server.carrier(ack_timeout_s=20)
    answers: list[Message] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ask, carrier, answers)
        request = await server.receive()
        server.send(Message(EMPTY, kind=ACK, mid=request.mid))
        separate = Message(CHANGED, [], b"late", kind=CON, mid=9, token=request.token)
        server.send(separate)
        acknowledgement = await server.receive()
        assert (acknowledgement.kind, acknowledgement.mid) == (ACK, 9)
    assert answers[0].payload == b"late"
    server.send(separate)
    assert (await server.receive()).kind == RST
    await carrier.close()
    server.close()


async def test_an_announced_answer_that_never_comes_is_asked_for_again() -> None:
    server = Server()
    carrier = server.carrier(ack_timeout_s=0.02)
    answers: list[Message] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ask, carrier, answers)
        request = await server.receive()
        server.send(Message(EMPTY, kind=ACK, mid=request.mid))
        while (again := await server.receive()).mid == request.mid:
            pass  # Repeated before it was acknowledged.
        server.send(Message(CHANGED, kind=ACK, mid=again.mid, token=again.token))
    assert len(answers) == 1
    await carrier.close()
    server.close()


async def test_a_lost_non_confirmable_request_is_repeated_as_a_confirmable_one() -> None:
    server = Server()
    carrier = server.carrier()
    answers: list[Message] = []
    async with anyio.create_task_group() as group:
        group.start_soon(ask, carrier, answers, False)
        first, second = await server.receive(), await server.receive()
        assert (first.kind, second.kind) == (NON, CON)
        assert first.mid != second.mid
        server.send(Message(CHANGED, kind=ACK, mid=second.mid, token=second.token))
    assert len(answers) == 1
    await carrier.close()
    server.close()


async def test_after_long_silence_another_port_is_tried_and_then_the_master_is_gone() -> None:
    server = Server()
    # Longer than a busy machine stands still, within which nothing is repeated.
    carrier = server.carrier(ack_timeout_s=0.02, silence_s=6)
    with pytest.raises(CarrierLost, match="has not answered for 6 s"):
        await ask(carrier, [])
    assert carrier.moves >= 1
    while True:
        with anyio.move_on_after(0.05) as scope:
            await server.receive()
        if scope.cancelled_caught:
            break
    assert len(set(server.ports)) == carrier.moves + 1
    await carrier.close()
    server.close()


async def test_a_server_that_rejects_requests_is_no_master() -> None:
    server = Server()
    carrier = server.carrier()
    async with anyio.create_task_group() as group:

        async def expect_rejection() -> None:
            with pytest.raises(CarrierLost, match="rejects what it is sent"):
                await ask(carrier, [])

        group.start_soon(expect_rejection)
        request = await server.receive()
        server.send(Message(EMPTY, kind=RST, mid=request.mid))
    await carrier.close()
    server.close()


async def test_whoever_sends_requests_here_is_rejected() -> None:
    server = Server()
    carrier = server.carrier()
    carrier.post(POST, [(URI_PATH, b"e")], b"")
    await server.receive()
    server.send(Message(POST, [(URI_PATH, b"e")], kind=CON, mid=3))
    rejection = await server.receive()
    assert (rejection.kind, rejection.mid) == (RST, 3)
    await carrier.close()
    server.close()


async def test_a_port_where_nobody_listens_is_found_out_at_once() -> None:
    server = Server()
    carrier = server.carrier(ack_timeout_s=60)
    server.close()
    with anyio.fail_after(PATIENCE_S), pytest.raises(CarrierLost, match="refused: nobody listens there"):
        await ask(carrier, [])
    await carrier.close()
