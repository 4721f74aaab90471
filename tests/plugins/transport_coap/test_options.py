"""Options: what they ask for, and which refuse a request."""

from __future__ import annotations

import pytest
from edgerm_transport_coap.message import (
    ACCEPT,
    BAD_OPTION,
    BAD_REQUEST,
    BLOCK2,
    CONTENT_FORMAT,
    PROXY_SCHEME,
    PROXYING_NOT_SUPPORTED,
    URI_HOST,
    URI_PATH,
    URI_QUERY,
    Options,
    uint,
)
from edgerm_transport_coap.options import Refusal, Target, parse_target


def test_path_query_and_formats_are_found() -> None:
    options: Options = [
        (URI_HOST, b"master"),
        (URI_PATH, b"e"),
        (URI_PATH, b"name"),
        (CONTENT_FORMAT, uint(63)),
        (URI_QUERY, b"1"),
        (ACCEPT, uint(42)),
        (2050, b"elective"),
    ]
    assert parse_target(options, bert=False) == Target([b"e", b"name"], [b"1"], 63, 42)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([(9, b"")], BAD_OPTION),
        ([(URI_PATH, bytes(256))], BAD_OPTION),
        ([(ACCEPT, b""), (ACCEPT, b"")], BAD_OPTION),
        ([(BLOCK2, bytes(4))], BAD_OPTION),
        ([(BLOCK2, b"\x17")], BAD_REQUEST),
        ([(PROXY_SCHEME, b"coap")], PROXYING_NOT_SUPPORTED),
    ],
)
def test_what_cannot_be_served_is_refused(options: Options, code: int) -> None:
    with pytest.raises(Refusal) as refused:
        parse_target(options, bert=False)
    assert refused.value.code == code


def test_blocks_of_streams_may_be_of_the_large_kind() -> None:
    parse_target([(BLOCK2, b"\x17")], bert=True)
