"""Who has been silent for too long: one timer for all, however many there are.

Everybody is looked at when the first of them may be due. Most have been heard again by then, so that looks
are rare; LOOK_S apart at least, so that they cost little even when many go silent one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from edgerm_transport_coap.config import LOOK_S


class Heard(Protocol):
    """Somebody who should be heard now and then.

    Attributes:
        heard_at: when that was last so, in the event loop's time.
        timeout_s: how long the silence may last.
    """

    heard_at: float
    timeout_s: float


T = TypeVar("T", bound=Heard)


class Silence(Generic[T]):
    """Watches over all that are in `watched` at the time.

    Parameters:
        watched: kept by the owner; who is not in it any more is not looked at.
        on_silent: told of each one that has been silent for too long, at most LOOK_S late; takes it out.
    """

    def __init__(self, watched: Callable[[], Collection[T]], on_silent: Callable[[T], None]) -> None:
        self._watched = watched
        self._on_silent = on_silent
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, timeout_s: float) -> None:
        """Somebody with that timeout is watched from now on, or has got that one."""
        self._look_at(self._loop.time() + timeout_s)

    def close(self) -> None:
        """Look no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, at: float) -> None:
        if self._timer is None or at < self._timer.when():
            self.close()
            self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for one in [one for one in self._watched() if one.heard_at + one.timeout_s <= now]:
            self._on_silent(one)
        if watched := self._watched():
            due = min(one.heard_at + one.timeout_s for one in watched)
            self._look_at(max(due, now + LOOK_S))
