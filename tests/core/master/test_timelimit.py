"""A call that does not return is broken off, and nothing else is."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, NoReturn

import pytest

from edgerm_core.limits import HEARTBEAT_S, LEASE_HEARTBEATS
from edgerm_core.master.timelimit import CALL_LIMIT_S, TICKS, TookTooLong, time_limit, unlimited

pytestmark = pytest.mark.timeout(method="thread")  # The other method uses the timer.

LIMIT_S: Final = 0.1
LONG_S: Final = 30.0
"""What loops for ever in these tests ends after this long, and the test fails."""


def describe(frame: FrameType | None) -> str:
    return frame.f_code.co_name if frame is not None else "nothing"


@pytest.fixture
def limited() -> Iterator[Callable[[Callable[[], object]], object]]:
    with time_limit(describe, LIMIT_S) as within:
        assert within is not unlimited
        yield within


def loops() -> NoReturn:
    while time.monotonic() < end:
        pass
    pytest.fail("it was not broken off")


end = 0.0


@pytest.fixture(autouse=True)
def set_end() -> None:
    global end
    end = time.monotonic() + LONG_S


def sleeps() -> NoReturn:
    time.sleep(LONG_S)
    pytest.fail("it was not broken off")


def waits_for_a_lock() -> NoReturn:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=LONG_S)
    pytest.fail("it was not broken off")


def catches_what_it_can() -> NoReturn:
    while time.monotonic() < end:
        try:
            sleeps()
        except Exception:
            continue
    pytest.fail("it was not broken off")


def catches_everything_twice() -> NoReturn:
    for _ in range(2):
        try:
            sleeps()
        except BaseException:
            continue
    sleeps()


def gives_up_when_interrupted() -> str:
    try:
        sleeps()
    except BaseException:
        return "an answer after all"


def turns_it_into_something_else() -> NoReturn:
    try:
        sleeps()
    except BaseException as error:
        raise RuntimeError("translated") from error


@pytest.mark.parametrize(
    "call",
    [
        loops,
        sleeps,
        waits_for_a_lock,
        catches_what_it_can,
        catches_everything_twice,
        gives_up_when_interrupted,
        turns_it_into_something_else,
    ],
    ids=lambda call: str(call.__name__),
)
def test_a_call_that_does_not_return_is_broken_off_and_named(
    call: Callable[[], object], limited: Callable[[Callable[[], object]], object]
) -> None:
    for _ in range(2):  # The next one is, too.
        with pytest.raises(TookTooLong, match=r"did not return within 0\.1 s, in \w+"):
            limited(call)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_place_is_where_it_was_first(limited: Callable[[Callable[[], object]], object]) -> None:
    with pytest.raises(TookTooLong, match=r"in sleeps$"):
        limited(catches_everything_twice)


def test_a_call_that_returns_or_raises_does_so_and_the_timer_is_off(
    limited: Callable[[Callable[[], object]], object],
) -> None:
    assert limited(lambda: 7) == 7
    for error in (ValueError, SystemExit, KeyboardInterrupt):

        def call(error: type[BaseException] = error) -> NoReturn:
            raise error

        with pytest.raises(error):
            limited(call)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_signal_that_comes_too_late_interrupts_nobody(
    limited: Callable[[Callable[[], object]], object],
) -> None:
    with pytest.raises(TookTooLong):
        limited(sleeps)
    for _ in range(2 * TICKS):
        signal.raise_signal(signal.SIGALRM)


def ticks_but_once() -> None:
    for _ in range(TICKS - 1):
        signal.raise_signal(signal.SIGALRM)


def test_a_process_that_was_stopped_is_not_late() -> None:
    """The timer fires once when it goes on, however long it was stopped."""
    with time_limit(describe, LONG_S) as within:
        for _ in range(2):
            within(ticks_but_once)


def test_off_the_main_thread_and_where_the_timer_is_used_there_is_no_limit() -> None:
    found: list[object] = []

    def look() -> None:
        with time_limit(describe) as within:
            found.append(within)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    with time_limit(describe):
        look()
    assert found == [unlimited, unlimited]
    assert unlimited(lambda: 7) == 7


def test_afterwards_the_signal_is_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(describe):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before


def test_no_agent_loses_its_lease_while_a_call_takes_too_long() -> None:
    assert CALL_LIMIT_S < HEARTBEAT_S * (LEASE_HEARTBEATS - 1)
