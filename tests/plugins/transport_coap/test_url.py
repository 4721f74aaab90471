"""URLs are taken apart, or refused with a sentence."""

from __future__ import annotations

import pytest
from edgerm_transport_coap.url import host_and_port, parse_url

from edgerm_core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("coap://master", "master", 5683),
        ("coap+tcp://192.0.2.1", "192.0.2.1", 5683),
        ("coap+ws://master", "master", 80),
        ("coap://[2001:db8::1]:61616/", "2001:db8::1", 61616),
    ],
)
def test_urls_have_the_ports_of_the_rfcs(text: str, host: str, port: int) -> None:
    url = parse_url(text)
    assert (url.host, url.port) == (host, port)
    assert url.port_given is (":61616" in text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://a", "is not a CoAP URL"),
        ("coaps://a", "is not a CoAP URL"),
        ("coap://", "has no host"),
        ("coap://a:b", "is not a URL"),
        ("coap://a b", "characters"),
        ("coap://a..b", "is not a host name"),
        ("coap://a/e", "no user, path, query"),
        ("coap://u@a", "no user, path, query"),
        ("coap://a?q", "no user, path, query"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_url(text)


def test_urls_with_the_port_that_was_bound() -> None:
    assert parse_url("coap://[::1]:0").with_port(5683) == "coap://[::1]:5683"
    assert host_and_port("192.0.2.1", 1) == "192.0.2.1:1"
