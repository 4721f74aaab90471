"""Virtual time: things happen in order, one after the other, and nothing else moves the clock.

Luck comes in named streams, each derived from the seed and its name alone. Taking one action out of a
plan leaves the luck of everything else as it was, without which shrinking would chase its own tail.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Final

from edgerm_core.testing.simulator.story import Story

EPOCH: Final = 1_750_000_000.0
"""Unix time at virtual second 0."""

MAX_EVENTS: Final = 5_000_000
"""More in one run is something that goes round in circles."""


class Failure(AssertionError):
    """Something that must hold does not."""


class Timer:
    """A call that will happen, unless it is cancelled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Let it not happen. Idempotent."""
        self.call = None


class World:
    """The clock, what is to happen, and the story.

    Parameters:
        max_events: more are an error; None: `MAX_EVENTS`.

    Attributes:
        now: virtual seconds since the beginning.
        events: how many things have happened.
    """

    def __init__(self, seed: int, story: Story, *, max_events: int | None = None) -> None:
        self.max_events = max_events
        self.seed = seed
        self.story = story
        self.now = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def luck(self, name: str) -> random.Random:
        """Return the stream of that name, from its beginning."""
        return random.Random(f"{self.seed}/{name}")

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Let `call` happen at `when`, or now if that has passed."""
        timer = Timer(call)
        heapq.heappush(self._queue, (max(when, self.now), next(self._order), timer))
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Let `call` happen after so many seconds."""
        return self.at(self.now + delay_s, call)

    def run_until(self, end: float) -> None:
        """Let everything happen that is due up to `end`.

        Raises:
            Failure: if there is no end to it.
        """
        queue = self._queue
        most = self.max_events or MAX_EVENTS
        while queue and queue[0][0] <= end:
            when, _, timer = heapq.heappop(queue)
            if timer.call is None:
                continue
            self.now = when
            self.events += 1
            if self.events > most:
                raise Failure(f"more than {most} events: something goes round in circles")
            timer.call()
        self.now = max(self.now, end)

    def tell(self, who: str, text: str) -> None:
        """Add a line to the story."""
        self.story.tell(self.now, who, text)

    @property
    def telling(self) -> bool:
        """Whether anybody wants the lines."""
        return self.story.keep
