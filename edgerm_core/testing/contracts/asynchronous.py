"""What suites with coroutines have in common: they run on asyncio, as edgerm's daemons do.

Code that blocks the event loop cannot be timed out by anything that runs in it, so it would make a
suite hang. The kernel's timer gets in and fails the test; where something else uses that timer, such as
pytest-timeout, that ends the test instead.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from types import FrameType
from typing import Final

import pytest

BLOCKED_S: Final = 30.0
"""An event loop that has not turned for this long is blocked for good."""

TURN_S: Final = 0.1
"""So often it turns in any case."""


class AsyncContract:
    """Base of the suites whose tests are coroutines; brings all that anyio's pytest plugin wants."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def blocked_s(self) -> float:
        """After how long a loop that does not turn counts as blocked."""
        return BLOCKED_S

    @pytest.fixture(autouse=True)
    async def loop_turns(self, blocked_s: float) -> AsyncIterator[None]:
        """Fail a test in which the event loop is blocked, where it is blocked."""
        if (
            not hasattr(signal, "setitimer")
            or threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
        ):
            yield
            return
        loop = asyncio.get_running_loop()
        next_turn: asyncio.Handle | None = None

        def turn() -> None:
            nonlocal next_turn
            signal.setitimer(signal.ITIMER_REAL, blocked_s)
            next_turn = loop.call_later(TURN_S, turn)

        def blocked(_signal: int, _frame: FrameType | None) -> None:
            pytest.fail(f"this has blocked the event loop for {blocked_s:g} s: nothing else could happen")

        next_turn = loop.call_soon(turn)
        signal.signal(signal.SIGALRM, blocked)
        try:
            yield
        finally:
            assert next_turn is not None
            next_turn.cancel()
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
