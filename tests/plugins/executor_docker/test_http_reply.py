"""Answers in HTTP, whatever the pieces they come in."""

from __future__ import annotations

import pytest
from edgerm_executor_docker.http_reply import NotHttp, ReplyDecoder
from hypothesis import given, settings
from hypothesis import strategies as st


def feed(raw: bytes, sizes: list[int]) -> tuple[ReplyDecoder, bytes]:
    decoder = ReplyDecoder()
    body = b""
    index = 0
    while raw:
        size = sizes[index % len(sizes)]
        index += 1
        body += decoder.feed(raw[:size])
        raw = raw[size:]
    return decoder, body


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), sizes)
@settings(max_examples=150, deadline=None)
def test_chunks(chunks: list[bytes], pieces: list[int]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    decoder, body = feed(raw, pieces)
    assert body == b"".join(chunks)
    assert decoder.ended
    assert not decoder.endless


@given(st.binary(max_size=80), sizes)
@settings(max_examples=100, deadline=None)
def test_body_with_a_length(data: bytes, pieces: list[int]) -> None:
    raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\nX: y\r\n\r\n%b" % (len(data), data)
    decoder, body = feed(raw, pieces)
    assert (decoder.status, body, decoder.ended) == (404, data, True)
    assert decoder.headers["x"] == "y"


@given(st.binary(max_size=80), sizes)
@settings(max_examples=100, deadline=None)
def test_connection_that_becomes_the_stream_itself(data: bytes, pieces: list[int]) -> None:
    raw = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + data
    decoder, body = feed(raw, pieces)
    assert (decoder.status, body, decoder.ended, decoder.endless) == (101, data, False, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        ReplyDecoder().feed(raw)


@given(st.binary(max_size=200), sizes)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, pieces: list[int]) -> None:
    try:
        feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data, pieces)
    except NotHttp:
        pass
