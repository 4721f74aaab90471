"""The section `[transport.ws]`."""

from __future__ import annotations

import pytest
from edgerm_transport_ws.config import WsConfig

from edgerm_core import limits
from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError


def section(text: str) -> WsConfig:
    return parse_config(f"[transport.ws]\n{text}").section("transport", "ws", WsConfig)


def test_every_key_is_optional_and_the_limits_are_cores() -> None:
    config = section("")
    assert config.max_message_bytes == limits.MAX_MESSAGE_BYTES
    assert config.max_connections == limits.MAX_CONNECTIONS
    assert config.compression is False


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_message_bytes = 10", "1024 to 1 GiB"),
        ("max_connections = 0", "1 to 1000000"),
        ("ping_interval_s = -1", "0 .no pings. to 86400"),
        ("ping_timeout_s = 0", "ping_timeout_s must be 0.05"),
        ("open_timeout_s = 0", "open_timeout_s must be 0.05"),
        ('key = "k.pem"', "key is set without certificate"),
        ('client_key = "k.pem"', "client_key is set without client_certificate"),
        ("certificate = 5", "certificate"),
        ("colour = 5", "unknown key"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        section(text)
