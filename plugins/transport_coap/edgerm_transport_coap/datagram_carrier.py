"""Requests to a master over UDP."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final

from edgerm_transport_coap.carrier import Carrier, CarrierLost, OnNote
from edgerm_transport_coap.config import ACK_RANDOM_FACTOR, CoapConfig
from edgerm_transport_coap.datagrams import DatagramRequest, Endpoint
from edgerm_transport_coap.message import ACK, CON, EMPTY, GET, NON, OBSERVE, RST, Message, Options
from edgerm_transport_coap.request import ACKNOWLEDGED, REJECTED

TOKEN_BYTES: Final = 4
"""Random, so that nobody off the path can forge an answer (RFC 7252, section 5.3.1)."""

ANNOUNCED_PATIENCE: Final = 8
"""An answer that was announced is waited for this many times `ack_timeout_s`, then asked for again."""

REFUSALS: Final = 2
"""In a row, of a port that has answered before: nobody listens there any more."""

MOVE_AFTER_REPEATS: Final = 3
"""So many repetitions without an answer: try from another port, which NATs take for a new flow."""


class DatagramCarrier(Carrier):
    """Over UDP.

    Parameters:
        sock: connected, which tells when nobody listens there. Closed with the carrier.
        local: see `Carrier`.
        config: the dialing side's.
    """

    def __init__(self, sock: socket.socket, local: bool, config: CoapConfig) -> None:
        self.local = local
        self.payload_bytes = config.block_bytes
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._asked: dict[bytes, _Asked] = {}
        self._observed = b""
        self._on_note: OnNote = _nobody
        self._refusals_left = 1  # The first one is final before there has been an answer.
        self._endpoint = _DialedEndpoint(sock, self)

    async def request(
        self, code: int, options: Options, payload: bytes = b"", *, confirmable: bool = True
    ) -> Message:
        """See `Carrier`."""
        message = Message(
            code, options, payload, token=secrets.token_bytes(TOKEN_BYTES), kind=CON if confirmable else NON
        )
        return await self._ask(message)

    async def observe(self, options: Options, on_note: OnNote) -> Message:
        """See `Carrier`."""
        token = self._observed = secrets.token_bytes(TOKEN_BYTES)
        self._on_note = on_note
        return await self._ask(Message(GET, [(OBSERVE, b""), *options], token=token))

    def post(self, code: int, options: Options, payload: bytes) -> None:
        """See `Carrier`."""
        message = Message(code, options, payload, token=secrets.token_bytes(TOKEN_BYTES), kind=NON)
        message.mid = self._endpoint.next_mid()
        self._endpoint.send(self._endpoint.address, message)

    async def close(self) -> None:
        """See `Carrier`."""
        self._endpoint.close()
        self.lose("was left")

    # --- requests -----------------------------------------------------------------------------

    async def _ask(self, message: Message) -> Message:
        asked = _Asked(message, self._loop.time() + self._config.silence_s)
        self._asked[message.token] = asked
        try:
            self._send(asked)
            return await asked.answer
        finally:
            del self._asked[message.token]
            asked.stop()

    def _send(self, asked: _Asked) -> None:
        """Send the request, as a new message if it is not the first time."""
        message, endpoint = asked.message, self._endpoint
        asked.stop()
        message.mid = endpoint.next_mid()
        first_s = self._config.ack_timeout_s
        if message.kind == NON:
            endpoint.send(endpoint.address, message)
            # An exchange must be carried out before the next one: ask again in earnest.
            message.kind = CON
            wait_s = first_s * random.uniform(1, ACK_RANDOM_FACTOR)
            asked.again = self._loop.call_later(wait_s, self._send, asked)
            return

        def on_end(outcome: str) -> None:
            if asked.answer.done():
                return
            if outcome == ACKNOWLEDGED:
                asked.again = self._loop.call_later(ANNOUNCED_PATIENCE * first_s, self._send, asked)
            elif outcome == REJECTED:
                asked.fail("rejects what it is sent: is it an edgerm master?")
            else:
                asked.fail(f"has not answered for {self._config.silence_s:g} s")

        left_s = max(0.0, asked.give_up_at - self._loop.time())
        transmission = endpoint.transmit(endpoint.address, message, first_s, on_end, give_up_s=left_s)
        asked.stop_sending = lambda: endpoint.stop(transmission)

    # --- told by the endpoint -----------------------------------------------------------------

    def on_answer(self, message: Message) -> None:
        """An answer, separate or not, or a notification."""
        self._refusals_left = REFUSALS
        asked = self._asked.get(message.token)
        known = asked is not None or message.token == self._observed
        if message.kind == CON:
            # RFC 7641, section 3.6: rejecting a notification ends the observation.
            reply = Message(EMPTY, kind=ACK if known else RST, mid=message.mid)
            self._endpoint.send(self._endpoint.address, reply)
        if asked is not None:
            if not asked.answer.done():
                asked.answer.set_result(message)
        elif known:
            self._on_note(message)

    def on_refusal(self) -> None:
        """Nobody listens on the master's port."""
        self._refusals_left -= 1
        if self._refusals_left <= 0:
            self.lose("refused: nobody listens there; is the master running?")

    def lose(self, text: str) -> None:
        """Give up all requests."""
        for asked in self._asked.values():
            asked.fail(text)


class _Asked:
    """A request that waits for its answer."""

    __slots__ = ("again", "answer", "give_up_at", "message", "stop_sending")

    def __init__(self, message: Message, give_up_at: float) -> None:
        self.message = message
        self.give_up_at = give_up_at
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.again: asyncio.TimerHandle | None = None
        self.stop_sending: Callable[[], None] = _nothing

    def stop(self) -> None:
        """Send it no more."""
        if self.again is not None:
            self.again.cancel()
        self.stop_sending()
        self.stop_sending = _nothing

    def fail(self, text: str) -> None:
        """Give it up."""
        if not self.answer.done():
            self.answer.set_exception(CarrierLost(text))


class _DialedEndpoint(Endpoint):
    """A connected socket, which is replaced when it leads nowhere any more."""

    def __init__(self, sock: socket.socket, carrier: DatagramCarrier) -> None:
        super().__init__(sock, _serve_nothing)
        self.address: Any = sock.getpeername()
        self._carrier = carrier

    def _on_response(self, message: Message, remote: Any) -> None:
        self._carrier.on_answer(message)

    def send_bytes(self, remote: Any, data: bytes) -> None:
        """See `Endpoint`."""
        if self._closed:
            return
        try:
            self.sock.send(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._on_socket_error(error)

    def _on_socket_error(self, error: OSError) -> None:
        if isinstance(error, ConnectionRefusedError):
            self._carrier.on_refusal()
        else:
            # Such as: the address that the socket sends from is not this machine's any more.
            self._move(always=True)

    def _before_repeating(self, repeats: int) -> None:
        self._move(always=repeats % MOVE_AFTER_REPEATS == 0)

    def _move(self, *, always: bool) -> None:
        """Take another socket, if the system would send from another address now, or in any case."""
        if self._closed:
            return
        try:
            sock = connected_socket(self.sock.family, self.address)
        except OSError:
            return  # No route at all: the next repetition tries again.
        if not always and sock.getsockname()[0] == self.sock.getsockname()[0]:
            sock.close()
            return
        self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        self.sock = sock
        self._attach()
        self._carrier.moves += 1


def connected_socket(family: int, address: Any) -> socket.socket:
    """Return a UDP socket that sends there. Raises OSError if there is no way."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _serve_nothing(request: DatagramRequest) -> None:
    """RFC 7252, section 4.2: a request to somebody who serves nothing is rejected."""
    request.reject()


def _nothing() -> None:
    """Nothing is on its way."""


def _nobody(message: Message) -> None:
    """Nobody observes."""
