"""CoAP messages to bytes and back: datagrams of RFC 7252, streams of RFC 8323.

Knows nothing of networks and of what the messages are for.
"""

from __future__ import annotations

import struct
from typing import Final

from edgerm_transport_coap.config import MAX_NUMBER_DIGITS, MAX_OPTIONS

CON: Final = 0
NON: Final = 1
ACK: Final = 2
RST: Final = 3
"""Types of datagrams: confirmable, non-confirmable, acknowledgement, reset."""

EMPTY: Final = 0x00
GET: Final = 0x01
POST: Final = 0x02
DELETE: Final = 0x04

CREATED: Final = 0x41
DELETED: Final = 0x42
VALID: Final = 0x43
CHANGED: Final = 0x44
CONTENT: Final = 0x45
CONTINUE: Final = 0x5F
BAD_REQUEST: Final = 0x80
BAD_OPTION: Final = 0x82
NOT_FOUND: Final = 0x84
METHOD_NOT_ALLOWED: Final = 0x85
NOT_ACCEPTABLE: Final = 0x86
INCOMPLETE: Final = 0x88
CONFLICT: Final = 0x89
TOO_LARGE: Final = 0x8D
UNSUPPORTED_FORMAT: Final = 0x8F
UNAVAILABLE: Final = 0xA3
PROXYING_NOT_SUPPORTED: Final = 0xA5
"""RFC 7252, section 12.1; RFC 7959, section 6; RFC 8132, section 6 (4.09)."""

CSM: Final = 0xE1
PING: Final = 0xE2
PONG: Final = 0xE3
RELEASE: Final = 0xE4
ABORT: Final = 0xE5
"""Signals of RFC 8323, section 5."""

URI_HOST: Final = 3
ETAG: Final = 4
OBSERVE: Final = 6
URI_PORT: Final = 7
LOCATION_PATH: Final = 8
URI_PATH: Final = 11
CONTENT_FORMAT: Final = 12
MAX_AGE: Final = 14
URI_QUERY: Final = 15
ACCEPT: Final = 17
BLOCK2: Final = 23
BLOCK1: Final = 27
SIZE2: Final = 28
PROXY_URI: Final = 35
PROXY_SCHEME: Final = 39
SIZE1: Final = 60
MORE: Final = 65000
"""Ours, of the range for experiments: the answer could not hold all that waits, ask again at once."""

EMPTY_FRAME: Final = 65004
"""Ours: there is a frame, and it is empty. The protocol has none such, but a transport carries any."""

_HEAD: Final = struct.Struct(">BBH")

Options = list[tuple[int, bytes]]
"""Number and value, in ascending order of numbers."""


class Malformed(Exception):
    """The bytes are not a CoAP message.

    Attributes:
        reset: message id of a confirmable datagram, whose sender is told by a reset (RFC 7252, section
            4.2); None: nobody is told.
    """

    def __init__(self, problem: str, reset: int | None = None) -> None:
        super().__init__(problem)
        self.reset = reset


class Message:
    """One message. Streams have neither type nor id.

    Attributes:
        kind: CON, NON, ACK or RST.
        code: method or response code.
        mid: message id.
        token, options, payload: as in the RFC.
    """

    __slots__ = ("_first", "code", "kind", "mid", "options", "payload", "token")

    def __init__(
        self,
        code: int,
        options: Options | None = None,
        payload: bytes = b"",
        *,
        token: bytes = b"",
        kind: int = CON,
        mid: int = 0,
    ) -> None:
        self.kind = kind
        self.code = code
        self.mid = mid
        self.token = token
        self.options: Options = options if options is not None else []
        self.payload = payload
        self._first: dict[int, bytes] | None = None

    @property
    def frame(self) -> bytes | None:
        """The frame that the payload is; None: nothing is said."""
        if not self.payload and self.option(EMPTY_FRAME) is None:
            return None
        return self.payload

    def option(self, number: int) -> bytes | None:
        """Return the first value of an option, or None."""
        if self._first is None:
            self._first = dict(reversed(self.options))
        return self._first.get(number)


class Exchange(Message):
    """A request to carry out an exchange, without any option that is not needed for it.

    Attributes:
        session: its name.
        number: of the exchange.
    """

    __slots__ = ("number", "session")

    def __init__(
        self, kind: int, mid: int, token: bytes, session: bytes, number: bytes, payload: bytes
    ) -> None:
        options = [(URI_PATH, b"e"), (URI_PATH, session), (URI_QUERY, number)]
        super().__init__(POST, options, payload, token=token, kind=kind, mid=mid)
        self.session = session
        self.number = int(number)

    def option(self, number: int) -> bytes | None:
        """See `Message`."""
        return None if number > URI_QUERY else super().option(number)


def code_name(code: int) -> str:
    """Return a code for people, such as `4.04`."""
    return f"{code >> 5}.{code & 31:02}"


# --- numbers and blocks -----------------------------------------------------------------------


def uint(value: int) -> bytes:
    """Return a number in the shortest form, 0 being empty (RFC 7252, section 3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def parse_uint(value: bytes) -> int:
    """Return the number that an option's value holds."""
    return int.from_bytes(value, "big")


def block(number: int, more: bool, exponent: int) -> bytes:
    """Return the value of a Block option (RFC 7959, section 2.2)."""
    return uint(number << 4 | more << 3 | exponent)


def parse_block(value: bytes) -> tuple[int, bool, int]:
    """Return block number, whether more follow, and the size's exponent (7 counts as 6).

    Raises:
        Malformed: if the value is longer than 3 bytes.
    """
    if len(value) > 3:
        raise Malformed("a Block option is longer than 3 bytes")
    packed = int.from_bytes(value, "big")
    return packed >> 4, bool(packed & 8), min(packed & 7, 6)


def block_exponent(size: int) -> int:
    """Return the exponent of the largest block of at most `size` bytes; at least 16."""
    return max(0, min(6, size.bit_length() - 5))


# --- options ----------------------------------------------------------------------------------


def _encode_options(options: Options, payload: bytes) -> bytearray:
    data = bytearray()
    last = 0
    for number, value in options:
        delta, length = number - last, len(value)
        last = number
        if delta < 13 and length < 13:
            data.append(delta << 4 | length)
        else:
            delta_nibble, delta_more = _extend(delta)
            length_nibble, length_more = _extend(length)
            data.append(delta_nibble << 4 | length_nibble)
            data += delta_more
            data += length_more
        data += value
    if payload:
        data.append(0xFF)
        data += payload
    return data


def _extend(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


def _parse_options(data: bytes, at: int) -> tuple[Options, bytes]:
    """Return options and payload. Raises IndexError or ValueError if they are cut off or wrong."""
    options: Options = []
    number = 0
    end = len(data)
    while at < end:
        byte = data[at]
        at += 1
        if byte == 0xFF:
            if at == end:
                raise ValueError("payload marker without payload")
            return options, data[at:]
        delta, length = byte >> 4, byte & 15
        if delta >= 13:
            if delta == 13:
                delta = data[at] + 13
                at += 1
            elif delta == 14:
                delta = (data[at] << 8 | data[at + 1]) + 269
                at += 2
            else:
                raise ValueError("reserved option delta")
        if length >= 13:
            if length == 13:
                length = data[at] + 13
                at += 1
            elif length == 14:
                length = (data[at] << 8 | data[at + 1]) + 269
                at += 2
            else:
                raise ValueError("reserved option length")
        number += delta
        if at + length > end or len(options) >= MAX_OPTIONS:
            raise ValueError("an option is cut off, or there are too many")
        options.append((number, data[at : at + length]))
        at += length
    return options, b""


# --- datagrams --------------------------------------------------------------------------------


def encode_datagram(message: Message) -> bytes:
    """Return the message as a datagram (RFC 7252, section 3)."""
    return encode_answer(
        message.kind, message.code, message.mid, message.token, message.options, message.payload
    )


def encode_answer(
    kind: int, code: int, mid: int, token: bytes, options: Options | None, payload: bytes
) -> bytes:
    """As `encode_datagram`, for what is sent at once and needs no Message."""
    head = _HEAD.pack(0x40 | kind << 4 | len(token), code, mid) + token
    if options:
        return head + _encode_options(options, payload)
    return head + b"\xff" + payload if payload else head


def decode_datagram(data: bytes) -> Message:
    """Return the message in a datagram.

    Raises:
        Malformed: if there is none.
    """
    return parse_exchange(data) or decode_any_datagram(data)


def decode_any_datagram(data: bytes) -> Message:
    """As `decode_datagram`, without the short way for exchanges."""
    if len(data) < 4 or data[0] >> 6 != 1:
        # RFC 7252, section 3: other versions are ignored without a word.
        raise Malformed("not a CoAP datagram")
    first = data[0]
    kind, token_length = first >> 4 & 3, first & 15
    mid = data[2] << 8 | data[3]
    message = Message(data[1], kind=kind, mid=mid)
    try:
        if token_length > 8 or 4 + token_length > len(data):
            raise ValueError("token of a wrong length")
        if data[1] == EMPTY and len(data) > 4:
            raise ValueError("an empty message with something in it")
        message.token = data[4 : 4 + token_length]
        message.options, message.payload = _parse_options(data, 4 + token_length)
    except (ValueError, IndexError) as error:
        raise Malformed(str(error), mid if kind == CON else None) from None
    return message


_EXCHANGE_PATH: Final = b"\xb1e\x08"
"""Uri-Path `e`, and the head of another one with 8 characters."""

_NUMBER: Final = 0x40
"""The head of Uri-Query behind a Uri-Path; plus its length."""


def parse_exchange(data: bytes) -> Exchange | None:
    """Return what `decode_any_datagram` would, if it is exchange number so and so of a session.

    Nearly all datagrams are: `POST e/<session>?<n>` without any other option. Everything else is None.
    """
    if len(data) < 4 or data[1] != POST:
        return None
    first = data[0]
    path = 4 + (first & 15)
    query = path + 11
    if (
        first & 0xE0 != 0x40  # Neither CON nor NON of version 1.
        or path > 12
        or data[path : path + 3] != _EXCHANGE_PATH
        or len(data) <= query
        or not 0 < (digits := data[query] - _NUMBER) <= MAX_NUMBER_DIGITS
    ):
        return None
    end = query + 1 + digits
    number, rest = data[query + 1 : end], data[end:]
    if len(number) < digits or not number.isdigit() or (rest and (rest[0] != 0xFF or len(rest) == 1)):
        return None
    mid = data[2] << 8 | data[3]
    return Exchange(first >> 4 & 3, mid, data[4:path], data[path + 3 : query], number, rest[1:])


# --- streams ----------------------------------------------------------------------------------


def encode_tcp(message: Message) -> bytes:
    """Return the message as it travels in a TCP stream (RFC 8323, section 3.2)."""
    body = _encode_options(message.options, message.payload)
    size = len(body)
    token = message.token
    if size < 13:
        head = bytes((size << 4 | len(token),))
    elif size < 269:
        head = bytes((13 << 4 | len(token), size - 13))
    elif size < 65805:
        head = bytes((14 << 4 | len(token),)) + (size - 269).to_bytes(2, "big")
    else:
        head = bytes((15 << 4 | len(token),)) + (size - 65805).to_bytes(4, "big")
    return head + bytes((message.code,)) + token + body


def tcp_length_bytes(first: int) -> int:
    """Return how many bytes of extended length follow the first byte of a message in a TCP stream."""
    return {13: 1, 14: 2, 15: 4}.get(first >> 4, 0)


def tcp_body_bytes(first: int, extended: bytes) -> int:
    """Return how many bytes of options and payload follow code and token."""
    nibble = first >> 4
    return nibble if nibble < 13 else int.from_bytes(extended, "big") + {13: 13, 14: 269, 15: 65805}[nibble]


def encode_websocket(message: Message) -> bytes:
    """Return the message as it travels in a WebSocket frame (RFC 8323, section 4.2)."""
    body = _encode_options(message.options, message.payload)
    return bytes((len(message.token), message.code)) + message.token + body


def decode_stream(token_length: int, code: int, rest: bytes) -> Message:
    """Return a message of a stream out of its parts.

    Parameters:
        rest: token, options and payload.

    Raises:
        Malformed: if they make no message.
    """
    try:
        if token_length > 8 or token_length > len(rest):
            raise ValueError("token of a wrong length")
        options, payload = _parse_options(rest, token_length)
    except (ValueError, IndexError) as error:
        raise Malformed(str(error)) from None
    return Message(code, options, payload, token=rest[:token_length])


def decode_websocket(data: bytes) -> Message:
    """Return the message in a WebSocket frame.

    Raises:
        Malformed: if there is none.
    """
    if len(data) < 2 or data[0] >> 4:
        raise Malformed("not a CoAP message")  # RFC 8323, section 4.2: Len is 0.
    return decode_stream(data[0] & 15, data[1], data[2:])
