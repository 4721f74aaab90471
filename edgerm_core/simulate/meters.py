"""Shares and tasks over time, exactly: what lies between two looks is averaged and not missed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgerm_core.master.queries import dominant_share
from edgerm_core.master.state import MasterState


class FrameworkSample(msgspec.Struct, frozen=True):
    """A framework over a stretch of time, on average.

    Attributes:
        share: its unweighted dominant share of all that was there.
        placed: tasks that had neither ended nor waited for a placement.
        waiting: tasks that waited for a placement.
    """

    share: float = 0.0
    placed: float = 0.0
    waiting: float = 0.0


class ShareMeter:
    """Adds up, for each framework, what it has times how long it has it.

    Attributes:
        contended_s: by framework, how long it waited for something while another one did, too.
        contended: by framework, the sum of its share over that time.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.contended_s = [0.0] * len(names)
        self.contended = [0.0] * len(names)
        self._now = [FrameworkSample()] * len(names)
        self._sums = [FrameworkSample()] * len(names)
        self._seen: list[object] = [None] * len(names)
        self._since = 0.0
        self._taken_at = 0.0

    def look(self, now: float, state: MasterState) -> None:
        """Take in the books as they are from now on."""
        self._add_up(now)
        for index, name in enumerate(self.names):
            record = state.frameworks.get(name)  # type: ignore[call-overload]
            if record is None:
                continue
            live, waiting = len(record.live), len(record.pending)
            seen = (live, waiting, record.allocated, state.totals)
            if seen != self._seen[index]:
                self._seen[index] = (live, waiting, dict(record.allocated), dict(state.totals))
                share, _ = dominant_share(state, record)
                self._now[index] = FrameworkSample(float(share), live - waiting, waiting)

    def take(self, now: float) -> tuple[FrameworkSample, ...]:
        """Return the averages since the last call."""
        self._add_up(now)
        seconds = max(now - self._taken_at, 1e-9)
        found = tuple(
            FrameworkSample(each.share / seconds, each.placed / seconds, each.waiting / seconds)
            for each in self._sums
        )
        self._sums = [FrameworkSample()] * len(self.names)
        self._taken_at = now
        return found

    def _add_up(self, now: float) -> None:
        seconds = now - self._since
        if seconds <= 0:
            return
        self._since = now
        contended = sum(1 for each in self._now if each.waiting) > 1
        for index, each in enumerate(self._now):
            before = self._sums[index]
            self._sums[index] = FrameworkSample(
                before.share + each.share * seconds,
                before.placed + each.placed * seconds,
                before.waiting + each.waiting * seconds,
            )
            if contended and each.waiting:
                self.contended_s[index] += seconds
                self.contended[index] += each.share * seconds
