"""Frames are the same after their blocks have been lost, doubled and shuffled."""

from __future__ import annotations

import pytest
from edgerm_transport_coap.blocks import Assembly, Block, Incomplete, TooLarge, respond_in_blocks
from edgerm_transport_coap.message import BLOCK1, BLOCK2, MORE, Malformed, block, parse_block
from hypothesis import given, settings
from hypothesis import strategies as st

from .test_request import Recorded


@given(
    st.binary(min_size=1, max_size=700),
    st.sampled_from((0, 1, 2, 4)),
    st.lists(st.integers(0, 50), max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_a_frame_comes_out_whole_whatever_comes_twice(
    frame: bytes, exponent: int, copies: list[int]
) -> None:
    size = 16 << exponent
    assembly = Assembly(1000)
    whole = None
    for offset in range(0, len(frame), size):
        more = offset + size < len(frame)
        whole = assembly.add(1, block(offset // size, more, exponent), frame[offset : offset + size])
        for number in copies:  # Late copies of what has come.
            if number * size <= offset and more:
                part = frame[number * size : (number + 1) * size]
                assert assembly.add(1, block(number, True, exponent), part) is None
    assert whole == frame


def test_a_missing_block_is_noticed() -> None:
    assembly = Assembly(1000)
    with pytest.raises(Incomplete):
        assembly.add(1, block(1, False, 0), b"x")
    assembly.add(1, block(0, True, 0), bytes(16))
    with pytest.raises(Incomplete):
        assembly.add(1, block(2, False, 0), b"x")
    with pytest.raises(Incomplete):
        assembly.add(2, block(1, False, 0), b"x")


def test_a_block_with_a_hole_at_its_end_is_no_block() -> None:
    with pytest.raises(Incomplete):
        Assembly(1000).add(1, block(0, True, 0), bytes(15))


def test_too_much_is_refused() -> None:
    assembly = Assembly(20)
    assembly.add(1, block(0, True, 0), bytes(16))
    with pytest.raises(TooLarge):
        assembly.add(1, block(1, True, 0), bytes(16))


def test_another_frame_replaces_an_unfinished_one() -> None:
    assembly = Assembly(1000)
    assembly.add("here", block(0, True, 0), b"a" * 16)
    assembly.add("here", block(1, True, 0), b"a" * 16)
    assembly.add("here", block(0, True, 0), b"b" * 16)
    assert assembly.add("here", block(1, False, 0), b"c") == b"b" * 16 + b"c"


def test_what_a_request_asks_for() -> None:
    assert Block.of(Recorded()) == Block()
    assert Block.of(Recorded([(BLOCK2, block(3, False, 2))])) == Block(192, 64, True)
    with pytest.raises(Malformed):
        Block.of(Recorded([(BLOCK2, b"1234")]))


def answered(request: Recorded, body: bytes, prove: bool = False) -> tuple[int, bytes, bytes | None]:
    respond_in_blocks(
        request, 0x44, [(MORE, b"")], body, Block.of(request), (lambda: None) if prove else None
    )
    return request.answer.code, request.answer.payload, request.answer.option(BLOCK2)


def test_short_answers_have_no_blocks() -> None:
    assert answered(Recorded(), bytes(1024)) == (0x44, bytes(1024), None)


def test_long_answers_begin_with_their_first_block() -> None:
    assert answered(Recorded(), bytes(1025)) == (0x44, bytes(1024), block(0, True, 6))


def test_a_wanted_block_is_cut_out_and_the_last_one_says_so() -> None:
    body = bytes(range(100))
    assert answered(Recorded([(BLOCK2, block(1, False, 1))]), body) == (
        0x44,
        body[32:64],
        block(1, True, 1),
    )
    assert answered(Recorded([(BLOCK2, block(3, False, 1))]), body) == (0x44, body[96:], block(3, False, 1))
    assert answered(Recorded([(BLOCK2, block(4, False, 1))]), body)[0] == 0x80


def test_options_are_in_order_and_the_request_s_block_is_named() -> None:
    request = Recorded([(BLOCK1, block(2, False, 6))])
    answered(request, bytes(2000))
    assert [number for number, _ in request.answer.options] == [BLOCK2, BLOCK1, MORE]


@given(st.integers(0, 200), st.integers(0, 3000))
@settings(max_examples=200, deadline=None)
def test_answers_to_be_proven_fit_into_their_room(room: int, size: int) -> None:
    request = Recorded()
    request.room = max(room, 34)  # The shortest exchange has 22 bytes.
    _, payload, option = answered(request, bytes(size), prove=True)
    assert request.done == ["proving"]
    overhead = 3 + 1 + (4 if option is not None else 0)
    assert len(payload) + overhead <= request.room
    if option is not None:
        assert len(payload) == 16 << parse_block(option)[2] or not parse_block(option)[1]
