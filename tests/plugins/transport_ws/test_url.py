"""WebSocket URLs."""

from __future__ import annotations

import pytest
from edgerm_transport_ws.url import Url, parse_url
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "secure", "host", "port", "port_given", "path"),
    [
        ("ws://127.0.0.1:7070", False, "127.0.0.1", 7070, True, ""),
        ("wss://host.example/edgerm/", True, "host.example", 443, False, "/edgerm/"),
        ("ws://[::1]:0", False, "::1", 0, True, ""),
        ("WS://Host", False, "host", 80, False, ""),
    ],
)
def test_a_url_is_taken_apart(
    text: str, secure: bool, host: str, port: int, port_given: bool, path: str
) -> None:
    assert parse_url(text) == Url(text, secure, host, port, port_given, path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://127.0.0.1", "not a WebSocket URL"),
        ("127.0.0.1:7070", "not a WebSocket URL"),
        ("ws://", "no host"),
        ("ws://:7070", "no host"),
        ("ws://host:x", "not a URL"),
        ("ws://host:70000", "not a URL"),
        ("ws://[::1", "not a URL"),
        ("ws://a b:7070", "percent-encode"),
        ("ws://a\x00b:7070", "percent-encode"),
        ("ws://a..b:7070", "not a host name"),
        (f"ws://{'a' * 64}:7070", "not a host name"),
        ("ws://host/caf\xe9", "percent-encode"),
        ("ws://user:secret@host", "no user"),
        ("ws://host?token=5", "no user, query"),
        ("ws://host#part", "no user, query or fragment"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_url(text)


@given(st.text(max_size=40) | st.text(max_size=40).map("ws://".__add__))
@settings(max_examples=200, deadline=None)
def test_any_text_is_either_a_url_or_a_config_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ConfigError:
        return
    assert url.host
    assert 0 <= url.port <= 65535
