"""What suites with coroutines have in common: they run on asyncio, as edgerm's daemons do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from edgerm_core.testing.contracts.alarm import alarm

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
        loop = asyncio.get_running_loop()
        sentence = f"this has blocked the event loop for {blocked_s:g} s: nothing else could happen"
        over = False
        with alarm(blocked_s, sentence) as set_back:

            def turn() -> None:
                if not over:
                    set_back()
                    loop.call_later(TURN_S, turn)

            turn()
            try:
                yield
            finally:
                over = True
