"""CoAP (RFC 7252) for a device that asks: one request at a time over UDP.

A request is built in `tx`, and stays there until the next one, so that sending it again costs nothing.
"""

import random
import select
import socket

from micropython import const

_CON = const(0)
_NON = const(1)
_ACK = const(2)
_RST = const(3)

_OBSERVE = const(6)
_LOCATION_PATH = const(8)
_URI_PATH = const(11)
_MAX_AGE = const(14)
_URI_QUERY = const(15)
_BLOCK2 = const(23)
_MORE = const(65000)

GET = const(1)
POST = const(2)
DELETE = const(4)

# What `poll` returns.
ANSWER = const(1)
LOST = const(2)
BELL = const(3)

OVERHEAD = const(64)
"""Header, token and options of the longest message, a block of a blob by its full name, in bytes."""

_TOKEN = const(4)
_RETRANSMISSIONS = const(4)
_SEPARATE_MS = const(30000)
"""How long a separate response may take after its empty ACK."""


class Client:
    """The device's end.

    Parameters:
        frame_bytes: longest payload it sends.
        block_bytes: longest payload it takes in one datagram.
        answer_ms: first wait for an answer (RFC 7252, section 4.8, calls it ACK_TIMEOUT).

    Attributes:
        waiting: an answer is outstanding; False: none is waited for any more.
        due: when `poll` has something to do even if nothing arrives, while waiting.

    Attributes, of the last answer:
        code, data, payload: its code, the datagram and where its payload begins.
        block2: value of that option, or -1.
        max_age: in seconds.
        more: whether option 65000 was there.
        observed: whether Observe was there.
        location: the last segment of Location-Path, as bytes.
    """

    def __init__(self, frame_bytes, block_bytes, answer_ms):
        self.tx = bytearray(frame_bytes + OVERHEAD)
        self.waiting = False
        self._answer_ms = answer_ms
        self.bytes_up = 0
        self.bytes_down = 0
        self.sock = None
        self._rx_bytes = block_bytes + OVERHEAD
        self._mid = random.getrandbits(16)
        self._token = None
        self._bell = None
        self._reply = bytearray(4)
        self._address = None
        self._poller = select.poll()
        self._option = 0

    def connect(self, host, port):
        """Find the master's address, anew each time: it may have moved.

        Raises:
            OSError: if the name cannot be resolved.
        """
        family, _, _, _, self._address = socket.getaddrinfo(host, port)[0]
        if self.sock is None:
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
            self.sock.setblocking(False)
            self._poller.register(self.sock, select.POLLIN)

    # --- asking -------------------------------------------------------------------------------

    def begin(self, code, path, query=(), block=-1, observe=False):
        """Begin a request and return where its payload goes; `send` follows.

        Parameters:
            block: value of Block2 (RFC 7959: number << 4 | size exponent); -1: none.
            observe: ask for notifications, which come as BELL from then on.
        """
        tx = self.tx
        tx[1] = code
        self._token = random.getrandbits(32).to_bytes(_TOKEN, "big")
        if observe:
            self._bell = self._token
        tx[4:8] = self._token
        self._option = 0
        at = 4 + _TOKEN
        if observe:
            at = self._put(at, _OBSERVE, b"")
        for part in path:
            at = self._put(at, _URI_PATH, part.encode())
        for part in query:
            at = self._put(at, _URI_QUERY, part.encode())
        if block >= 0:
            at = self._put(at, _BLOCK2, block.to_bytes(1 + (block > 0xFF) + (block > 0xFFFF), "big"))
        tx[at] = 0xFF
        self._begun = at + 1
        return at + 1

    def _put(self, at, number, value):
        # No option of ours is further than 12 from the one before; names may be longer than 12 bytes.
        tx = self.tx
        n = len(value)
        tx[at] = number - self._option << 4 | (n if n < 13 else 13)
        self._option = number
        at += 1
        if n >= 13:
            tx[at] = n - 13
            at += 1
        tx[at : at + n] = value
        return at + n

    def send(self, now, end, confirmable):
        """Send what was begun, its payload ending at `end`."""
        # Without a payload there is no marker (RFC 7252, section 3).
        self._end = end if end > self._begun else end - 1
        self.again(now, confirmable)

    def again(self, now, confirmable):
        """Send the last request in a new message. An answer to either will do."""
        self._mid = self._mid + 1 & 0xFFFF
        self.tx[0] = 0x40 | (_CON if confirmable else _NON) << 4 | _TOKEN
        self.tx[2] = self._mid >> 8
        self.tx[3] = self._mid & 0xFF
        self._wait_ms = self._answer_ms * (0x20000 + random.getrandbits(16)) >> 17
        self._tries = _RETRANSMISSIONS if confirmable else 0
        self.due = now + self._wait_ms
        self.waiting = True
        self._transmit(self.tx, self._end)

    # --- hearing ------------------------------------------------------------------------------

    def poll(self, now):
        """Take what has arrived, send again what is due; return ANSWER, LOST, BELL, or 0."""
        while self.sock is not None:
            data = self._receive()
            if data is None:
                break
            event = self._take(data, now)
            if event:
                return event
        if self.waiting and now >= self.due:
            if not self._tries:
                self.waiting = False
                return LOST
            self._tries -= 1
            self._wait_ms *= 2
            self.due = now + self._wait_ms
            self._transmit(self.tx, self._end)
        return 0

    def _receive(self):
        for _ in self._poller.ipoll(0):
            try:
                data, address = self.sock.recvfrom(self._rx_bytes)
            except OSError:
                return None
            self.bytes_down += len(data)
            return data if address == self._address else b""
        return None

    def _transmit(self, buf, n):
        try:
            self.sock.sendto(memoryview(buf)[:n], self._address)
            self.bytes_up += n
        except OSError:
            pass  # No network now: as good as lost on the way.

    def _take(self, data, now):
        if len(data) < 4 or data[0] >> 6 != 1:
            return 0
        kind = data[0] >> 4 & 3
        mine = data[2] << 8 | data[3] == self._mid
        if data[1] == 0:
            if kind == _CON:
                self._answer(_RST, data)  # "CoAP ping"
            elif mine and self.waiting and kind == _ACK:
                self._tries = 0
                self.due = now + _SEPARATE_MS
            elif mine and self.waiting and kind == _RST:
                self.waiting = False
                return LOST
            return 0
        token = data[4 : 4 + (data[0] & 15)]
        bell = token == self._bell
        if data[1] < 0x40 or not (bell or token == self._token) or (kind == _ACK and not mine):
            if kind == _CON:
                self._answer(_RST, data)
            return 0
        rings = bell and not (self.waiting and token == self._token)
        if self.waiting and not rings and not self._parse(data):
            # Either damaged, or with an option that must not be ignored.
            if kind == _CON:
                self._answer(_RST, data)
            self.waiting = False
            return LOST
        if kind == _CON:
            self._answer(_ACK, data)
        if rings:
            return BELL
        if not self.waiting:
            return 0  # Answered already: a double.
        self.waiting = False
        return ANSWER

    def _answer(self, kind, data):
        reply = self._reply
        reply[0] = 0x40 | kind << 4
        reply[2] = data[2]
        reply[3] = data[3]
        self._transmit(reply, 4)

    def _parse(self, data):
        self.data = data
        self.code = data[1]
        self.block2 = -1
        self.max_age = 60
        self.more = self.observed = False
        end = len(data)
        at = 4 + (data[0] & 15)
        number = 0
        while at < end and data[at] != 0xFF:
            delta = data[at] >> 4
            n = data[at] & 15
            at += 1
            # RFC 7252, section 3.1: 13 and 14 stand for a longer number in 1 or 2 bytes behind; 15 is
            # reserved, and is taken for 3 bytes, which makes an option that nobody knows.
            if delta > 12:
                at += delta - 12
                delta = int.from_bytes(data[at - delta + 12 : at], "big") + (13, 269)[delta > 13]
            if n > 12:
                at += n - 12
                n = int.from_bytes(data[at - n + 12 : at], "big") + (13, 269)[n > 13]
            number += delta
            value = data[at : at + n]
            at += n
            if at > end:
                return False
            if number == _LOCATION_PATH:
                self.location = value
            elif number == _OBSERVE:
                self.observed = True
            elif number == _MAX_AGE:
                self.max_age = int.from_bytes(value, "big")
            elif number == _BLOCK2:
                self.block2 = int.from_bytes(value, "big")
            elif number == _MORE:
                self.more = True
            elif number & 1:
                return False
        self.payload = at + 1 if at < end else end
        return True


def szx(size):
    """Return RFC 7959's exponent of a block size."""
    exponent = 6
    while exponent and 16 << exponent > size:
        exponent -= 1
    return exponent
