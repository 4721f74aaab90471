"""What the options of a request say, and which ones it must not have: RFC 7252, section 5.4."""

from __future__ import annotations

from typing import Final

import msgspec

from edgerm_transport_coap.message import (
    ACCEPT,
    BAD_OPTION,
    BAD_REQUEST,
    BLOCK1,
    BLOCK2,
    CONTENT_FORMAT,
    PROXY_SCHEME,
    PROXY_URI,
    PROXYING_NOT_SUPPORTED,
    URI_HOST,
    URI_PATH,
    URI_PORT,
    URI_QUERY,
    Options,
    parse_uint,
)

_UNDERSTOOD: Final = {
    URI_HOST: 255,
    URI_PORT: 2,
    URI_PATH: 255,
    URI_QUERY: 255,
    ACCEPT: 2,
    BLOCK1: 3,
    BLOCK2: 3,
}
"""Critical options (section 5.4.1: the odd ones), and how long each may be."""

_REPEATABLE: Final = frozenset({URI_PATH, URI_QUERY})

_CONTENT_FORMAT_BYTES: Final = 2

_RESERVED_EXPONENT: Final = 7


class Refusal(Exception):
    """The request cannot be served because of an option.

    Attributes:
        code: says so to the peer.
    """

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Target(msgspec.Struct):
    """What is asked for.

    Attributes:
        path, query: of the URI, in parts.
        content_format: of the payload; None: not given.
        accept: the only format that will do for the answer; None: any.
    """

    path: list[bytes]
    query: list[bytes]
    content_format: int | None = None
    accept: int | None = None


def parse_target(options: Options, *, bert: bool) -> Target:
    """Return what is asked for.

    Parameters:
        bert: whether blocks may have the size that RFC 8323, section 6, adds for streams. Elsewhere it is
            an error (RFC 7959, section 2.2).

    Raises:
        Refusal: if there is a critical option that is unknown, too long or once too often, or a proxy is
            wanted.
    """
    target = Target([], [])
    last = -1
    for number, value in options:
        if number & 1:
            if number in (PROXY_URI, PROXY_SCHEME):
                raise Refusal(PROXYING_NOT_SUPPORTED)
            if len(value) > _UNDERSTOOD.get(number, -1) or (number == last and number not in _REPEATABLE):
                raise Refusal(BAD_OPTION)
        if number == URI_PATH:
            target.path.append(value)
        elif number == URI_QUERY:
            target.query.append(value)
        elif number == ACCEPT:
            target.accept = parse_uint(value)
        elif number in (BLOCK1, BLOCK2):
            if not bert and parse_uint(value) & 7 == _RESERVED_EXPONENT:
                raise Refusal(BAD_REQUEST)
        elif number == CONTENT_FORMAT and number != last and len(value) <= _CONTENT_FORMAT_BYTES:
            target.content_format = parse_uint(value)
        last = number
    return target
