"""Named points in time, the next one first, in O(log n) for each change."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

Key = tuple[str, int, int]
"""What is due: a name, and for runs the task id and the attempt (0, 0 otherwise)."""

COMPACT_SLACK = 1024
"""Stale heap entries tolerated beyond the live ones before the heap is rebuilt."""


class Deadlines:
    """A set of keys, each due at one time. Setting a key again moves it."""

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: Key, at: float) -> None:
        """Make `key` due at `at`; an earlier or later time set before is forgotten."""
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + COMPACT_SLACK:
            self._heap = [(time, each) for each, time in self._at.items()]
            heapq.heapify(self._heap)

    def get(self, key: Key, default: float) -> float:
        """Return when `key` is due, or `default` if it is not set."""
        return self._at.get(key, default)

    def cancel(self, key: Key) -> None:
        """Forget `key`. Idempotent."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Return when the next key is due, or None if there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Iterator[Key]:
        """Yield and forget the keys due at `now`, earliest first.

        A key that is set again while this runs is yielded again only if its new time has come too.
        """
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[1]
            del self._at[key]
            yield key
