"""Time for the state machines: seconds that never go backwards."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds since the Unix epoch, as far as this process could tell when it started."""


class SteadyClock:
    """Unix time at the start, and from then on what the monotonic clock adds.

    Setting the machine's clock, by hand or by NTP, moves neither leases nor timeouts. A board that
    boots in 1970 counts from there. Records of an earlier run are never in the future.

    Parameters:
        not_before: the latest time on record; the clock starts there if the machine's is behind.
    """

    def __init__(
        self,
        not_before: float = 0.0,
        *,
        wall: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._base = max(wall(), not_before) - monotonic()

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._base + self._monotonic()
