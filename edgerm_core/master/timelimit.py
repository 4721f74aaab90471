"""Breaks off a call into a plugin that does not return, such as a scheduler that loops for ever.

The master calls schedulers and observers on its event loop's thread, so while one works nothing else
happens. A thread beside it could only look on. The kernel's timer gets in: Python runs the handler of a
signal in the main thread, between two steps of whatever code is at work there, and what the handler
raises comes out of that code.

The handler raises only while a limited call is under way, and `TimeLimit` catches what it raises, so
it never comes out anywhere else in the master. What the plugin had half done stays half done: as after any
other failure, it must not be trusted to remember. A lock that it had just taken may stay taken.

Not broken off: code that does not come back to the interpreter, such as a library's computation in C; and
no call at all where there are no such signals (Windows), off the main thread, or where something else
uses the timer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

CALL_LIMIT_S: Final = 10.0
"""For one call. Well above what a slow machine needs for a large cluster, and below every agent's lease."""

TICKS: Final = 5
"""So often in that time the timer fires. Counted, not timed: a process that was stopped is not late."""


class TookTooLong(Exception):
    """A call was broken off; the text says after how long and where it was."""


class Within(Protocol):
    """Calls a function. Raises what it raises, or TookTooLong."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


def unlimited(function: Callable[[], T], /) -> T:
    """Call the function, for as long as it takes."""
    return function()


class _Interrupt(BaseException):
    """Out of the reach of a plugin's `except Exception`."""


class TimeLimit:
    """Gives calls on the main thread a limit, one at a time. Made by `time_limit`.

    Parameters:
        limit_s: how long a call may take.
        describe: names who is at work in a stack.
    """

    def __init__(self, limit_s: float, describe: Callable[[FrameType | None], str]) -> None:
        self._limit_s = limit_s
        self._describe = describe
        self._active = False
        self._ticks = 0
        self._culprit = ""

    def __call__(self, function: Callable[[], T], /) -> T:
        """Return what the function returns.

        Raises:
            TookTooLong: if it had to be broken off, whatever it made of that.
            BaseException: whatever it raises.
        """
        try:
            self._ticks = 0
            self._active = True
            self._set_timer(self._limit_s / TICKS)
            try:
                result = function()
            finally:
                self._active = False
                self._set_timer(0.0)
            if self._ticks < TICKS:
                return result
        except (_Interrupt, Exception):
            # The interrupt may have come before the lines above were through.
            self._active = False
            self._set_timer(0.0)
            if self._ticks < TICKS:
                raise
        raise TookTooLong(f"it did not return within {self._limit_s:g} s, in {self._culprit}")

    def on_tick(self, _signal: int, frame: FrameType | None) -> None:
        """Interrupt the call if it is time; again at every second tick, should it not care."""
        if not self._active:
            return
        self._ticks += 1
        if self._ticks >= TICKS and (self._ticks - TICKS) % 2 == 0:
            self._culprit = self._culprit if self._ticks > TICKS else self._describe(frame)
            raise _Interrupt

    @staticmethod
    def _set_timer(interval_s: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)


@contextmanager
def time_limit(
    describe: Callable[[FrameType | None], str], limit_s: float = CALL_LIMIT_S
) -> Iterator[Within]:
    """Yield what gives calls a limit; where that cannot be had, what calls without one.

    Parameters:
        describe: names who is at work in a stack.
    """
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
    ):
        yield unlimited
        return
    limit = TimeLimit(limit_s, describe)
    signal.signal(signal.SIGALRM, limit.on_tick)
    try:
        yield limit
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
