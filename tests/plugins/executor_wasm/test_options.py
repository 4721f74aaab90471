"""The options of an implementation."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from edgerm_executor_wasm.options import Options, parse_options

from edgerm_core.errors import SpecError


def test_nothing_said_means_a_command_without_input() -> None:
    assert parse_options({}) == Options()
    assert parse_options({}).input_bytes == b""


@pytest.mark.parametrize("value", [b"\0\xff", "grüße"])
def test_input_is_bytes_or_text_also_over_the_wire(value: bytes | str) -> None:
    raw = cbor2.loads(cbor2.dumps({"input": value}))
    assert parse_options(raw).input_bytes == (value if isinstance(value, bytes) else value.encode())


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"functon": "f"}, "functon.*known options: function, abi, input, result"),
        ({"function": 3}, "function"),
        ({"abi": "json"}, "abi"),
        ({"input": 3}, "input must be bytes or text, not int"),
        ({"input": None}, "input must be bytes or text, not NoneType"),
        ({"result": "file"}, "result"),
        ({"abi": "bytes"}, "needs the name of a function"),
        ({"result": "value"}, "needs the name of a function"),
    ],
)
def test_wrong_option_is_named(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        parse_options(raw)
