"""The section is checked, and its defaults are those of the RFC."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from edgerm_transport_coap.config import ACK_TIMEOUT_S, SILENCE_S, CoapConfig


def test_the_defaults_are_those_of_the_rfc() -> None:
    config = CoapConfig()
    assert config.ack_timeout_s == ACK_TIMEOUT_S == 2
    assert config.silence_s == SILENCE_S == 93
    assert config.block_bytes == 1024
    assert config.observe


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_message_bytes": 63},
        {"max_message_bytes": 65537},
        {"max_sessions": 0},
        {"block_bytes": 1000},
        {"block_bytes": 2048},
        {"round_trip_s": -1},
        {"keepalive_s": -1},
        {"ack_timeout_s": 0},
        {"open_timeout_s": 0},
        {"silence_s": 0},
        {"unknown": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, CoapConfig)
