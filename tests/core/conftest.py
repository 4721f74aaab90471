"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


@pytest.fixture
async def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Put the event loop's clock forward by some seconds: whatever waits for less is due.

    So that limits can be long where a test waits for them, and a busy machine does not exceed them.
    """
    loop = asyncio.get_running_loop()
    real, ahead_s = loop.time, 0.0

    def forward(seconds: float) -> None:
        nonlocal ahead_s
        ahead_s += seconds

    monkeypatch.setattr(loop, "time", lambda: real() + ahead_s)
    return forward
