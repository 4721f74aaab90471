from __future__ import annotations

from collections.abc import Callable
from typing import Any

from click.testing import Result

from edgerm_core.client.logs import LogPiece
from edgerm_core.messages import LogStream


def test_output_passes_byte_for_byte_and_gaps_are_told(
    operator: Any, invoke: Callable[..., Result]
) -> None:
    operator.pieces = [
        LogPiece.make(b"\xff\x00one\n", LogStream.STDOUT, 0, 0),
        LogPiece.make(b"two", LogStream.STDOUT, 100, 94),
    ]
    result = invoke("logs", "t5", "-f", "--tail", "50")
    assert result.stdout_bytes == b"\xff\x00one\ntwo"
    assert result.stderr == "(94 bytes are no longer kept)\n"
    assert operator.requests[-1] == ("logs", 5, "stdout", {"follow": True, "tail_bytes": 50, "attempt": 0})


def test_stderr_of_an_attempt(operator: Any, invoke: Callable[..., Result]) -> None:
    invoke("logs", "t5", "--stderr", "--attempt", "2")
    assert operator.requests[-1] == (
        "logs",
        5,
        "stderr",
        {"follow": False, "tail_bytes": None, "attempt": 2},
    )
