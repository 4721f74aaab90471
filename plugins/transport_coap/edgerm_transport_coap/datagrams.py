"""CoAP's message layer on a UDP socket: RFC 7252, section 4.

Confirmable messages are repeated until they are acknowledged, one at a time for each peer (NSTART,
section 4.7). Requests are not deduplicated by message id: exchanges count themselves, openings are
recognised in `resources.py`, everything else is idempotent (section 4.5 allows that). So nothing is
kept for a datagram that has been answered.

Plain asyncio instead of anyio: the socket is read from a callback of the event loop, many datagrams
at a time, which no portable interface offers.
"""

from __future__ import annotations

import asyncio
import collections
import ipaddress
import logging
import random
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from edgerm_transport_coap.config import (
    ACK_RANDOM_FACTOR,
    AMPLIFICATION,
    DEFAULT_BLOCK_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_RETRANSMIT,
    READ_BATCH,
    RECEIVE_BUFFER_BYTES,
)
from edgerm_transport_coap.message import (
    ACK,
    BLOCK1,
    CON,
    EMPTY,
    NON,
    RST,
    TOO_LARGE,
    Malformed,
    Message,
    Options,
    block,
    block_exponent,
    decode_datagram,
    encode_answer,
    encode_datagram,
)
from edgerm_transport_coap.message_ids import MessageIds
from edgerm_transport_coap.request import ACKNOWLEDGED, REJECTED, TIMED_OUT, Request
from edgerm_transport_coap.url import host_and_port

log = logging.getLogger(__name__)

IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
"""Linux' number; Python knows the name since 3.14."""

_IN_PKTINFO: Final = struct.Struct("=I4s4s")

_READ_BYTES: Final = MAX_DATAGRAM_BYTES + 1
"""The kernel cuts off the rest: whatever has come in full length was longer than is taken."""


class Transmission:
    """A confirmable message on its way; see `Endpoint.transmit`."""

    __slots__ = (
        "data",
        "give_up_at",
        "max_repeat_s",
        "mid",
        "on_end",
        "remote",
        "repeat_s",
        "repeats",
        "timer",
    )

    def __init__(
        self,
        remote: Any,
        mid: int,
        data: bytes,
        repeat_s: float,
        give_up_at: float,
        on_end: Callable[[str], None],
    ) -> None:
        self.remote = remote
        self.mid = mid
        self.data = data
        self.repeat_s = repeat_s
        self.max_repeat_s = repeat_s * (1 << MAX_RETRANSMIT)
        self.repeats = 0
        self.give_up_at = give_up_at
        self.on_end = on_end
        self.timer: asyncio.TimerHandle | None = None


class Endpoint:
    """A bound UDP socket that answers requests.

    Parameters:
        sock: bound; closed with the endpoint.
        on_request: given each request; answers it now or later.
    """

    def __init__(self, sock: socket.socket, on_request: Callable[[DatagramRequest], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_request = on_request
        #: Returns the message id of what is sent next.
        self.next_mid = MessageIds().draw
        #: By peer; the first is on its way, the others wait for it.
        self._transmissions: dict[Any, collections.deque[Transmission]] = {}
        self._closed = False
        self._failed = False
        self.sock = sock
        self._attach()

    def _attach(self) -> None:
        sock = self.sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        #: Bound to all addresses: answers must come from the address that was asked (section 5.3.2 of
        #: the RFC matches responses by endpoint), which the kernel tells with each datagram.
        self._wildcard = sock.getsockname()[0] in ("0.0.0.0", "::")
        if self._wildcard:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def close(self) -> None:
        """Close the socket; what has not been acknowledged is not repeated. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        for queue in self._transmissions.values():
            for transmission in queue:
                if transmission.timer is not None:
                    transmission.timer.cancel()
        self._transmissions.clear()

    # --- in -----------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        for _ in range(READ_BATCH):
            if self._closed:
                return
            try:
                if self._wildcard:
                    data, ancillary, _, address = self.sock.recvmsg(_READ_BYTES, 64)
                    remote: Any = (address, _answer_from(ancillary))
                else:
                    data, remote = self.sock.recvfrom(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._on_socket_error(error)
                return
            try:
                self._dispatch(data, remote)
            except Exception:
                # A bug. It costs one datagram, and one entry in the log, however often it comes.
                level = logging.DEBUG if self._failed else logging.ERROR
                self._failed = True
                log.log(level, "a datagram could not be handled; please report this", exc_info=True)

    def _dispatch(self, data: bytes, remote: Any) -> None:
        if len(data) > MAX_DATAGRAM_BYTES:
            self._refuse_too_long(data, remote)
            return
        try:
            message = decode_datagram(data)
        except Malformed as error:
            if error.reset is not None:
                self.send(remote, Message(EMPTY, kind=RST, mid=error.reset))
            return
        code, kind = message.code, message.kind
        if kind >= ACK and self._transmissions:
            self._on_reply(message, remote)
        if code == EMPTY:
            if kind == CON:
                # A ping (section 4.3).
                self.send(remote, Message(EMPTY, kind=RST, mid=message.mid))
        elif code < 0x20:
            if kind < ACK:
                self._on_request(DatagramRequest(self, message, remote, len(data)))
        else:
            self._on_response(message, remote)

    def _refuse_too_long(self, data: bytes, remote: Any) -> None:
        """Its end is missing, so that nothing behind its token is believed."""
        try:
            message = decode_datagram(data[: 4 + (data[0] & 15)])
        except Malformed:
            return
        if message.kind < ACK and 0 < message.code < 0x20:
            # RFC 7959, section 2.9.3: in blocks of this size it will be taken.
            hint = block(0, False, block_exponent(DEFAULT_BLOCK_BYTES))
            DatagramRequest(self, message, remote, len(data)).respond(TOO_LARGE, [(BLOCK1, hint)])

    def _on_reply(self, message: Message, remote: Any) -> None:
        queue = self._transmissions.get(remote)
        if queue is not None and queue[0].mid == message.mid:
            self._finish(queue[0], ACKNOWLEDGED if message.kind == ACK else REJECTED)

    def _on_response(self, message: Message, remote: Any) -> None:
        """Nobody here has asked."""
        if message.kind == CON:
            self.send(remote, Message(EMPTY, kind=RST, mid=message.mid))

    def _on_socket_error(self, error: OSError) -> None:
        log.debug("UDP socket: %s", error)

    # --- out ----------------------------------------------------------------------------------

    def send(self, remote: Any, message: Message) -> None:
        """Send a datagram; a socket that takes no more loses it, as the network might."""
        self.send_bytes(remote, encode_datagram(message))

    def send_bytes(self, remote: Any, data: bytes) -> None:
        """As `send`, encoded already."""
        if self._closed:
            return
        try:
            if self._wildcard:
                self.sock.sendmsg((data,), remote[1], 0, remote[0])
            else:
                self.sock.sendto(data, remote)
        except BlockingIOError:
            pass
        except OSError as error:
            self._on_socket_error(error)

    def transmit(
        self,
        remote: Any,
        message: Message,
        repeat_s: float,
        on_end: Callable[[str], None],
        *,
        give_up_s: float | None = None,
    ) -> Transmission:
        """Send a confirmable message until it is acknowledged, rejected, or given up.

        Parameters:
            repeat_s: first repeated after this to ACK_RANDOM_FACTOR times this, then doubling.
            on_end: told ACKNOWLEDGED, REJECTED or TIMED_OUT; not if `stop` comes first.
            give_up_s: None: after MAX_RETRANSMIT repetitions; 0: no repetition, but an acknowledgement
                is waited for as long.
        """
        repeat_s *= random.uniform(1, ACK_RANDOM_FACTOR)
        if give_up_s is None:
            give_up_s = repeat_s * ((2 << MAX_RETRANSMIT) - 1)
        transmission = Transmission(
            remote, message.mid, encode_datagram(message), repeat_s, self._loop.time() + give_up_s, on_end
        )
        queue = self._transmissions.get(remote)
        if self._closed:
            pass  # Nothing leaves any more.
        elif queue is None:
            self._transmissions[remote] = collections.deque((transmission,))
            self._send_again(transmission)
        else:
            queue.append(transmission)
        return transmission

    def stop(self, transmission: Transmission) -> None:
        """Repeat it no more. Idempotent."""
        queue = self._transmissions.get(transmission.remote)
        if queue is not None and transmission in queue:
            transmission.on_end = _nobody
            self._finish(transmission, ACKNOWLEDGED)

    def _send_again(self, transmission: Transmission) -> None:
        now = self._loop.time()
        if transmission.timer is not None:
            if now >= transmission.give_up_at:
                self._finish(transmission, TIMED_OUT)
                return
            transmission.repeats += 1
            transmission.repeat_s = min(2 * transmission.repeat_s, transmission.max_repeat_s)
            self._before_repeating(transmission.repeats)
        # The timer first: a socket that fails ends everything.
        wait_s = transmission.repeat_s
        if now + wait_s < transmission.give_up_at < now + 2 * wait_s:
            wait_s = transmission.give_up_at - now
        transmission.timer = self._loop.call_at(now + wait_s, self._send_again, transmission)
        self.send_bytes(transmission.remote, transmission.data)

    def _before_repeating(self, repeats: int) -> None:
        """Something has not been answered, for the so many-th time."""

    def _finish(self, transmission: Transmission, outcome: str) -> None:
        if transmission.timer is not None:
            transmission.timer.cancel()
        queue = self._transmissions[transmission.remote]
        first = queue[0] is transmission
        queue.remove(transmission)
        if not queue:
            del self._transmissions[transmission.remote]
        elif first:
            self._send_again(queue[0])
        transmission.on_end(outcome)


class DatagramRequest(Request):
    """A request that came in a datagram."""

    __slots__ = ("_endpoint", "_late", "_size", "_transmission")

    def __init__(self, endpoint: Endpoint, message: Message, remote: Any, size: int) -> None:
        super().__init__(message, remote)
        self._endpoint = endpoint
        self._size = size
        self._late = False
        self._transmission: Transmission | None = None

    payload_bytes = DEFAULT_BLOCK_BYTES

    @property
    def repeating(self) -> bool:
        """See `Request`."""
        return self._transmission is not None

    @property
    def peer(self) -> str:
        """See `Request`."""
        host, port = self._address
        return f"coap://{host_and_port(host, port)}"

    @property
    def local(self) -> bool:
        """See `Request`."""
        address = ipaddress.ip_address(self._address[0].partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback

    @property
    def _address(self) -> tuple[str, int]:
        remote: Any = self.remote
        address = remote[0] if isinstance(remote[0], tuple) else remote
        return address[0], address[1]

    @property
    def room(self) -> int | None:
        """See `Request`. An empty acknowledgement may come in addition, or have come."""
        return AMPLIFICATION * self._size - 8 - len(self.message.token)

    @property
    def identity(self) -> object | None:
        """See `Request`."""
        return self.remote, self.message.mid, self.message.token

    def respond(self, code: int, options: Options | None = None, payload: bytes = b"") -> None:
        """See `Request`. Piggybacked, or separate if the acknowledgement has gone (section 5.2)."""
        asked = self.message
        endpoint = self._endpoint
        self.answered = True
        if asked.kind == CON and self._late:
            answer = Message(code, options, payload, token=asked.token, mid=endpoint.next_mid())
            self._transmission = endpoint.transmit(self.remote, answer, self.repeat_s, _nobody)
            return
        kind, mid = (ACK, asked.mid) if asked.kind == CON else (NON, endpoint.next_mid())
        endpoint.send_bytes(self.remote, encode_answer(kind, code, mid, asked.token, options, payload))

    def respond_proving(
        self, code: int, options: Options, payload: bytes, on_proven: Callable[[], None]
    ) -> None:
        """See `Request`. Sent once: whoever is there asks again if it gets lost."""
        self.acknowledge()
        self.answered = True
        answer = Message(
            code, options, payload, token=self.message.token, kind=CON, mid=self._endpoint.next_mid()
        )

        def on_end(outcome: str) -> None:
            if outcome == ACKNOWLEDGED:
                on_proven()

        self._transmission = self._endpoint.transmit(
            self.remote, answer, self.repeat_s, on_end, give_up_s=0
        )

    def prove(self, on_end: Callable[[str], None]) -> Callable[[], None]:
        """See `Request`. A ping, which is answered with a reset (section 4.3)."""
        endpoint = self._endpoint
        ping = Message(EMPTY, kind=CON, mid=endpoint.next_mid())
        transmission = endpoint.transmit(self.remote, ping, self.repeat_s, on_end, give_up_s=0)
        return lambda: endpoint.stop(transmission)

    def acknowledge(self) -> None:
        """See `Request`."""
        if self.message.kind == CON and not self._late:
            self._late = True
            self._endpoint.send(self.remote, Message(EMPTY, kind=ACK, mid=self.message.mid))

    def reject(self) -> None:
        """See `Request`."""
        self.answered = True
        self._endpoint.send(self.remote, Message(EMPTY, kind=RST, mid=self.message.mid))

    def notify(
        self, code: int, options: Options, payload: bytes, on_end: Callable[[str], None]
    ) -> Callable[[], None]:
        """See `Request`."""
        endpoint = self._endpoint
        note = Message(code, options, payload, token=self.message.token, kind=CON, mid=endpoint.next_mid())
        transmission = endpoint.transmit(self.remote, note, self.repeat_s, on_end)
        return lambda: endpoint.stop(transmission)

    def stop(self) -> None:
        """See `Request`."""
        if self._transmission is not None:
            self._endpoint.stop(self._transmission)
            self._transmission = None


def _nobody(outcome: str) -> None:
    """Whoever has sent it does not care."""


def _answer_from(ancillary: list[tuple[int, int, bytes]]) -> tuple[tuple[int, int, bytes], ...]:
    """Return what makes an answer leave from the address that a datagram was sent to.

    The interface is left open, so that a route that has changed is used.
    """
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, asked, _ = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
            return ((level, kind, _IN_PKTINFO.pack(0, asked, b"")),)
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return ((level, kind, data if link_local else data[:16] + bytes(4)),)
    return ()
