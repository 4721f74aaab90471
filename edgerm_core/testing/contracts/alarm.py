"""Keeps a suite from hanging where the code under test does.

Code that does not return cannot be timed out by anything that waits for it. The kernel's timer gets in
and fails the test at the line it hangs in; where something else uses that timer, such as pytest-timeout,
that ends the test instead.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import pytest

CALL_LIMIT_S: Final = 120.0
"""No test of a suite without coroutines takes this long, not even on a small and busy machine."""


@contextmanager
def alarm(after_s: float, sentence: str) -> Iterator[Callable[[], None]]:
    """Fail with `sentence` what goes on for longer; what is yielded sets the clock back."""
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    ):
        yield lambda: None
        return

    def set_back() -> None:
        signal.setitimer(signal.ITIMER_REAL, after_s)

    def ring(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(sentence)

    signal.signal(signal.SIGALRM, ring)
    try:
        set_back()
        yield set_back
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


class TimelyContract:
    """Base of the suites without coroutines."""

    @pytest.fixture
    def limit_s(self) -> float:
        """After how long a test counts as hanging."""
        return CALL_LIMIT_S

    @pytest.fixture(autouse=True)
    def returns(self, limit_s: float) -> Iterator[None]:
        """Fail a test that hangs, where it does."""
        with alarm(limit_s, f"this has not returned within {limit_s:g} s"):
            yield
