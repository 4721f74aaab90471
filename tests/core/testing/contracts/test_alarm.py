"""What hangs in a suite fails, and what does not is left alone."""

from __future__ import annotations

import signal
import time

import pytest

from edgerm_core.testing.contracts.alarm import alarm

pytestmark = pytest.mark.timeout(method="thread")  # The other method uses the timer.


def test_what_goes_on_for_too_long_fails_where_it_is() -> None:
    def hang() -> None:
        # Set here: before, the time could be over before this has begun.
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(30)

    with pytest.raises(pytest.fail.Exception, match="this hangs") as caught, alarm(60.0, "this hangs"):
        hang()
    assert any(entry.name == "hang" for entry in caught.traceback)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_in_time_is_left_alone_and_the_clock_can_be_set_back() -> None:
    with alarm(60.0, "this hangs") as set_back:
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert left_s > 30
        signal.setitimer(signal.ITIMER_REAL, 20.0)
        set_back()
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        assert left_s > 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_a_timer_that_somebody_else_uses_is_left_to_them() -> None:
    mine = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        with alarm(60.0, "this hangs") as set_back:
            set_back()
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, mine)
