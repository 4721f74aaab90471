"""A request on its way to its answer, whatever it came in on, and a FIFO of those that wait."""

from __future__ import annotations

import abc
import asyncio
import collections
from collections.abc import Callable
from typing import Final

from edgerm_transport_coap.config import ACK_TIMEOUT_S, EXCHANGE_LIFETIME_S, RECENT_OPENINGS
from edgerm_transport_coap.message import Message, Options

ACKNOWLEDGED: Final = "acknowledged"
REJECTED: Final = "rejected"
TIMED_OUT: Final = "timed out"
"""How the sending of a confirmable message ends."""


class Request(abc.ABC):
    """A request, and the ways to answer it.

    Attributes:
        message: what came.
        remote: where from; equal for the same place, opaque otherwise.
        answered: whether the answer has been given.
        repeat_s: answers that must be confirmed are repeated after this, doubling.
        on_late: told that the request still has no answer after ANSWER_WAIT_S.
        bert: whether it may ask for blocks of several KiB (RFC 8323, section 6).
    """

    bert = False

    __slots__ = ("answered", "message", "on_late", "remote", "repeat_s")

    def __init__(self, message: Message, remote: object) -> None:
        self.message = message
        self.remote = remote
        self.answered = False
        self.repeat_s = ACK_TIMEOUT_S
        self.on_late: Callable[[Request], None] | None = None

    @property
    def repeating(self) -> bool:
        """Whether the answer is sent again until it is confirmed or `stop` is called."""
        return False

    @property
    @abc.abstractmethod
    def peer(self) -> str:
        """Where it came from, for people."""

    @property
    @abc.abstractmethod
    def local(self) -> bool:
        """Whether it came from this machine."""

    @property
    @abc.abstractmethod
    def room(self) -> int | None:
        """How long an answer may be, options counted, to an address nobody has proven; None: any length."""

    @property
    @abc.abstractmethod
    def identity(self) -> object | None:
        """What a repetition of the same message has in common with it; None: none can come."""

    @property
    @abc.abstractmethod
    def payload_bytes(self) -> int:
        """The longest payload of an answer for which nobody has asked in blocks."""

    def settle(self) -> Callable[[], None]:
        """A session lives from now on where the request came from; return how to say that it has left."""
        return nothing

    @abc.abstractmethod
    def respond(self, code: int, options: Options | None = None, payload: bytes = b"") -> None:
        """Answer."""

    def reject(self) -> None:
        """Say that the message cannot be processed, and no more."""
        raise NotImplementedError  # There are no non-confirmable messages elsewhere.

    @abc.abstractmethod
    def respond_proving(
        self, code: int, options: Options, payload: bytes, on_proven: Callable[[], None]
    ) -> None:
        """Answer such that `on_proven` is called when the peer turns out to be where it says."""

    @abc.abstractmethod
    def prove(self, on_end: Callable[[str], None]) -> Callable[[], None]:
        """Ask the address for a sign of life; return how to stop waiting for it.

        `on_end` is told anything but TIMED_OUT if there is one.
        """

    @abc.abstractmethod
    def acknowledge(self) -> None:
        """Say that the answer takes a while."""

    @abc.abstractmethod
    def notify(
        self, code: int, options: Options, payload: bytes, on_end: Callable[[str], None]
    ) -> Callable[[], None]:
        """Send a further answer; return how to take it back. `on_end` is told how it went."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Repeat the answer no more: the peer has it, or does not want it."""


def nothing() -> None:
    """There is nothing to do."""


class Waiting:
    """Requests that have no answer yet, each looked at once after the same delay; one timer for all."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._queue: collections.deque[tuple[float, Request]] = collections.deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: Request) -> None:
        """After the delay tell the request's `on_late`, then acknowledge it if it still waits."""
        at = self._loop.time() + self._delay_s
        self._queue.append((at, request))
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._look)

    def close(self) -> None:
        """Look at nothing more."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time() + 0.001  # The loop may call a little early.
        queue = self._queue
        while queue and queue[0][0] <= now:
            request = queue.popleft()[1]
            if not request.answered and request.on_late is not None:
                request.on_late(request)
            if not request.answered:
                request.acknowledge()
        # Those that have their answer need no timer.
        while queue and queue[0][1].answered:
            queue.popleft()
        self._timer = self._loop.call_at(queue[0][0], self._look) if queue else None


class Recent:
    """What a repeated message is known by, to what it led to; bounded by number and age."""

    def __init__(self) -> None:
        self._found: collections.OrderedDict[object, tuple[float, object]] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, identity: object, result: object, now: float) -> None:
        """Remember."""
        found = self._found
        found[identity] = (now, result)
        while len(found) > RECENT_OPENINGS or self._is_old(next(iter(found.values()))[0], now):
            found.popitem(last=False)

    def get(self, identity: object, now: float) -> object | None:
        """Return what the same message led to, if it came within EXCHANGE_LIFETIME_S."""
        at, result = self._found.get(identity, (0.0, None))
        return None if self._is_old(at, now) else result

    @staticmethod
    def _is_old(at: float, now: float) -> bool:
        return now - at >= EXCHANGE_LIFETIME_S
