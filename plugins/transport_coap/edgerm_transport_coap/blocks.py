"""Frames and blobs in blocks: RFC 7959.

Blocks up are put together by session and exchange, not by address, so that a device may move in
between. Blocks down are cut from the last answer, or read where they are asked for; nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgerm_transport_coap.config import DEFAULT_BLOCK_BYTES
from edgerm_transport_coap.message import (
    BAD_REQUEST,
    BLOCK1,
    BLOCK2,
    Options,
    block,
    block_exponent,
    parse_block,
)
from edgerm_transport_coap.request import Request


class Block(msgspec.Struct, frozen=True):
    """Which part of an answer is asked for.

    Attributes:
        offset: in bytes.
        size: at most this many; 16 to 1024.
        asked: whether the request said so.
    """

    offset: int = 0
    size: int = DEFAULT_BLOCK_BYTES
    asked: bool = False

    @staticmethod
    def of(request: Request) -> Block:
        """Return what a request asks for. Raises Malformed if its option makes no sense."""
        value = request.message.option(BLOCK2)
        if value is None:
            return WHOLE
        number, _, exponent = parse_block(value)
        return Block(number << exponent + 4, 1 << exponent + 4, True)


WHOLE = Block()


def respond_in_blocks(
    request: Request,
    code: int,
    options: Options,
    body: bytes,
    want: Block,
    prove: Callable[[], None] | None = None,
    *,
    offset: int = 0,
    size: int | None = None,
) -> None:
    """Answer with the block of `body` that is wanted, or a smaller one.

    Parameters:
        options: those before and behind Block2, in order.
        prove: called when the address is proven; None: it is.
        offset, size: where `body` is in the whole, and how long that is; None: it is the whole.
    """
    first = request.message.option(BLOCK1)
    whole = len(body) if size is None else size
    if prove is None and first is None and not want.asked and whole <= request.payload_bytes:
        request.respond(code, options, body)  # Most answers.
        return
    if want.offset and want.offset >= whole:
        request.respond(BAD_REQUEST)
        return
    length = min(want.size, 16 << block_exponent(request.payload_bytes))
    if prove is not None and request.room is not None:
        # Marker, Block2, the option More and its number.
        fixed = sum(4 + len(value) for _, value in options) + 1 + 5
        length = min(length, 16 << block_exponent(max(16, request.room - fixed)))
    elif not want.asked and whole <= request.payload_bytes:
        length = whole
    end = min(want.offset + length, whole)
    chosen = list(options)
    if want.asked or end < whole:
        exponent = block_exponent(length)
        value = block(want.offset >> exponent + 4, end < whole, exponent)
        place = next((i for i, (number, _) in enumerate(chosen) if number > BLOCK2), len(chosen))
        chosen.insert(place, (BLOCK2, value))
    if first is not None:
        # RFC 7959, section 2.3: the answer to the last block names it.
        place = next((i for i, (number, _) in enumerate(chosen) if number > BLOCK1), len(chosen))
        chosen.insert(place, (BLOCK1, first))
    payload = body[want.offset - offset : end - offset]
    if prove is None:
        request.respond(code, chosen, payload)
    else:
        request.respond_proving(code, chosen, payload, prove)


class Incomplete(Exception):
    """A block does not follow those that are there."""


class TooLarge(Exception):
    """The blocks make more than is taken."""


class Assembly:
    """A frame that comes in blocks (Block1).

    Parameters:
        max_bytes: of the whole.
    """

    __slots__ = ("_data", "_max_bytes", "_of")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._of: object = None
        self._data = bytearray()

    def add(self, of: object, option: bytes, payload: bytes) -> bytes | None:
        """Add a block; return the whole once its last block is there.

        Parameters:
            of: what the frame belongs to; a block of something else begins anew.
            option: the value of Block1.

        Raises:
            Malformed: if the option makes no sense.
            Incomplete: if blocks before it are missing.
            TooLarge: if the whole gets too large.
        """
        number, more, exponent = parse_block(option)
        offset = number << exponent + 4
        if of != self._of:
            self._of = of
            self._data.clear()
        if offset > len(self._data) or (more and len(payload) % (1 << exponent + 4)):
            raise Incomplete
        if offset + len(payload) > self._max_bytes:
            self.clear()
            raise TooLarge
        if self._data[offset : offset + len(payload)] != payload or not more:
            self._data[offset:] = payload  # Else a late copy: what came behind it stays.
        if more:
            return None
        whole = bytes(self._data)
        self.clear()
        return whole

    def clear(self) -> None:
        """Forget what is there."""
        self._of = None
        if self._data:
            self._data = bytearray()
