"""CPU share: how long a run must pause so that it uses no more than it was granted. No I/O, no clock."""

from __future__ import annotations

from typing import Final

BURST_S: Final = 0.05
"""Processor time a run may use at once after it has been idle. Short runs are never made to pause;
a share is exact over some tenths of a second."""


class CpuShare:
    """A token bucket of processor time.

    Parameters:
        share: of one processor, such as 0.25; None: all that is free.
        now: when the run starts, in seconds of the clock that `charge` uses.
    """

    __slots__ = ("_at", "_credit_s", "_share")

    def __init__(self, share: float | None, now: float) -> None:
        # A run has one thread: a larger share is no limit.
        self._share = share if share is not None and share < 1.0 else None
        self._credit_s = BURST_S
        self._at = now

    def charge(self, cpu_s: float, now: float) -> float:
        """Return for how many seconds to pause after using `cpu_s`; 0: go on."""
        if self._share is None:
            return 0.0
        earned = (now - self._at) * self._share
        self._at = now
        self._credit_s = min(BURST_S, self._credit_s + earned) - cpu_s
        return max(0.0, -self._credit_s / self._share)
