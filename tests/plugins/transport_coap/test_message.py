"""Bytes are what the RFCs say, and nothing that comes breaks the parser."""

from __future__ import annotations

import pytest
from edgerm_transport_coap.config import MAX_OPTIONS
from edgerm_transport_coap.message import (
    ACK,
    BLOCK2,
    CON,
    CONTENT,
    EMPTY_FRAME,
    GET,
    NON,
    POST,
    RST,
    URI_PATH,
    URI_QUERY,
    Exchange,
    Malformed,
    Message,
    block,
    block_exponent,
    code_name,
    decode_any_datagram,
    decode_datagram,
    decode_stream,
    decode_websocket,
    encode_datagram,
    encode_tcp,
    encode_websocket,
    parse_block,
    parse_exchange,
    parse_uint,
    tcp_body_bytes,
    tcp_length_bytes,
    uint,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MESSAGES = st.builds(
    lambda code, options, payload, token, kind, mid: Message(
        code, sorted(options, key=lambda option: option[0]), payload, token=token, kind=kind, mid=mid
    ),
    st.integers(1, 0xFF),
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=600)), max_size=8),
    st.binary(max_size=2000),
    st.binary(max_size=8),
    st.sampled_from((CON, NON, ACK, RST)),
    st.integers(0, 65535),
)


def same(one: Message, other: Message) -> bool:
    return (one.code, one.token, one.options, one.payload) == (
        other.code,
        other.token,
        other.options,
        other.payload,
    )


def test_the_example_of_the_rfc() -> None:
    """RFC 7252, appendix A, figure 16: GET coap://server/temperature, and its answer."""
    request = Message(GET, [(URI_PATH, b"temperature")], kind=CON, mid=0x7D34)
    assert encode_datagram(request) == bytes.fromhex("40017d34bb") + b"temperature"
    answer = Message(CONTENT, [], b"22.3 C", kind=ACK, mid=0x7D34)
    assert encode_datagram(answer) == bytes.fromhex("60457d34ff") + b"22.3 C"


@given(MESSAGES)
@settings(max_examples=200, deadline=None)
def test_datagrams_come_back_as_they_were(message: Message) -> None:
    found = decode_datagram(encode_datagram(message))
    assert same(found, message)
    assert (found.kind, found.mid) == (message.kind, message.mid)


@given(MESSAGES)
@settings(max_examples=200, deadline=None)
def test_messages_of_streams_come_back_as_they_were(message: Message) -> None:
    assert same(decode_websocket(encode_websocket(message)), message)
    data = encode_tcp(message)
    extended = tcp_length_bytes(data[0])
    size = tcp_body_bytes(data[0], data[1 : 1 + extended])
    rest = data[2 + extended :]
    assert len(rest) == (data[0] & 15) + size
    assert same(decode_stream(data[0] & 15, data[1 + extended], rest), message)


def test_a_long_message_of_a_tcp_stream_has_four_bytes_of_length() -> None:
    data = encode_tcp(Message(POST, [], bytes(70_000)))
    assert data[0] >> 4 == 15
    assert tcp_body_bytes(data[0], data[1:5]) == 70_001


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for decode in (decode_datagram, decode_websocket):
        try:
            assert isinstance(decode(data), Message)
        except Malformed:
            pass


@pytest.mark.parametrize(
    ("data", "reset"),
    [
        ("", None),
        ("40", None),
        ("80017d34", None),  # Version 2.
        ("4001", None),
        ("4901000100000000000000000001", 1),  # A token of 9 bytes.
        ("5901000100000000000000000001", None),  # The same, not confirmable.
        ("440100010000", 1),  # A token that is cut off.
        ("40000001ff", 1),  # Empty, but for a payload marker.
        ("40010001ff", 1),  # A payload marker without payload.
        ("40010001f0", 1),  # Reserved delta.
        ("400100010f", 1),  # Reserved length.
        ("40010001b561", 1),  # A value that is cut off.
        ("40010001d0", 1),  # An extended delta that is cut off.
        ("4001000110e0", 1),
        ("4001000110e000", 1),
    ],
)
def test_what_is_no_message_is_malformed_and_confirmable_ones_are_reset(
    data: str, reset: int | None
) -> None:
    with pytest.raises(Malformed) as caught:
        decode_datagram(bytes.fromhex(data))
    assert caught.value.reset == reset


NUMBERS = st.one_of(st.integers(0, 10**10 - 1).map(b"%d".__mod__), st.binary(max_size=16))

ALMOST_EXCHANGES = st.builds(
    lambda kind, code, mid, token, path, session, number, more, payload: encode_datagram(
        Message(
            code,
            [(URI_PATH, path), (URI_PATH, session), (URI_QUERY, number), *more],
            payload,
            token=token,
            kind=kind,
            mid=mid,
        )
    ),
    st.sampled_from((CON, NON, ACK)),
    st.sampled_from((POST, POST, POST, GET)),
    st.integers(0, 65535),
    st.binary(max_size=8),
    st.sampled_from((b"e", b"e", b"e", b"b", b"ee")),
    st.one_of(st.binary(min_size=8, max_size=8), st.binary(max_size=20)),
    NUMBERS,
    st.lists(st.tuples(st.integers(URI_QUERY, 70), st.binary(max_size=2)), max_size=1),
    st.binary(max_size=40),
)


@given(ALMOST_EXCHANGES, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=2))
@settings(max_examples=500, deadline=None)
def test_the_short_way_finds_what_the_long_way_finds(data: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(data)
    for at, byte in changes:
        changed[at % len(data)] = byte
    for end in range(len(changed) + 1):
        cut_off = bytes(changed[:end])
        found = parse_exchange(cut_off)
        if found is not None:
            expected = decode_any_datagram(cut_off)
            assert same(found, expected)
            assert (found.kind, found.mid) == (expected.kind, expected.mid)
            assert all(found.option(n) == expected.option(n) for n in range(EMPTY_FRAME + 1, 0, -13))
            assert all(found.option(n) == expected.option(n) for n in range(100))
            assert found.options == [(URI_PATH, b"e"), (URI_PATH, found.session), found.options[2]]
            assert found.number == int(found.options[2][1])


@given(
    st.sampled_from((CON, NON)),
    st.integers(0, 65535),
    st.binary(max_size=8),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 10**10 - 1),
    st.binary(max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_every_plain_exchange_goes_the_short_way(
    kind: int, mid: int, token: bytes, session: bytes, number: int, payload: bytes
) -> None:
    options = [(URI_PATH, b"e"), (URI_PATH, session), (URI_QUERY, b"%d" % number)]
    sent = Message(POST, options, payload, token=token, kind=kind, mid=mid)
    found = decode_datagram(encode_datagram(sent))
    assert isinstance(found, Exchange)
    assert same(found, sent)
    assert (found.kind, found.mid, found.session, found.number) == (kind, mid, session, number)


def test_options_are_limited() -> None:
    options = [(URI_QUERY, b"")] * (MAX_OPTIONS + 1)
    with pytest.raises(Malformed):
        decode_datagram(encode_datagram(Message(GET, options)))


def test_a_websocket_message_with_a_length_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_websocket(b"\x10\x01")


@given(st.integers(0, (1 << 20) - 1), st.booleans(), st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_block_options_come_back_as_they_were(number: int, more: bool, exponent: int) -> None:
    assert parse_block(block(number, more, exponent)) == (number, more, exponent)


def test_blocks_of_the_largest_kind_count_as_1024() -> None:
    assert parse_block(block(1, True, 7)) == (1, True, 6)


def test_a_block_option_of_four_bytes_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_block(b"1234")


def test_block_sizes() -> None:
    assert [block_exponent(size) for size in (16, 31, 32, 63, 1023, 1024, 5000)] == [0, 0, 1, 1, 5, 6, 6]


def test_numbers_are_as_short_as_can_be() -> None:
    assert uint(0) == b""
    assert uint(255) == b"\xff"
    assert uint(65000) == b"\xfd\xe8"
    assert parse_uint(b"\x00\x01") == 1


def test_the_first_of_several_options_counts() -> None:
    message = Message(GET, [(URI_PATH, b"a"), (URI_PATH, b"b")])
    assert message.option(URI_PATH) == b"a"
    assert message.option(BLOCK2) is None


def test_an_empty_payload_says_nothing_unless_it_is_marked() -> None:
    assert Message(POST).frame is None
    assert Message(POST, [(EMPTY_FRAME, b"")]).frame == b""
    assert Message(POST, [], b"x").frame == b"x"


def test_codes_for_people() -> None:
    assert code_name(0x84) == "4.04"
    assert code_name(0x45) == "2.05"
