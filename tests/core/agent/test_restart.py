"""The restart policy: how often, and after what delay."""

from __future__ import annotations

import pytest

from edgerm_core.agent.restart import RestartCount, next_restart
from edgerm_core.tasks import RestartPolicy

POLICY = RestartPolicy(on="failure", attempts=3, interval_s=100.0, delay_s=1.0, max_delay_s=3.0)


@pytest.mark.parametrize(
    ("on", "ok", "restarts"),
    [
        ("never", False, False),
        ("never", True, False),
        ("failure", False, True),
        ("failure", True, False),
        ("always", False, True),
        ("always", True, True),
    ],
)
def test_what_is_restarted(on: str, ok: bool, restarts: bool) -> None:
    policy = RestartPolicy(on=on)  # type: ignore[arg-type]
    assert (next_restart(policy, RestartCount(), ok=ok, ran_s=1.0, now=1000.0) is not None) == restarts


def test_the_delay_doubles_up_to_its_limit_and_attempts_run_out() -> None:
    count, delays, now = RestartCount(), [], 1000.0
    while (restart := next_restart(POLICY, count, ok=False, ran_s=1.0, now=now)) is not None:
        delay_s, count = restart
        delays.append(delay_s)
        now += 1
    assert delays == [1.0, 2.0, 3.0]


def test_after_an_interval_attempts_are_new_and_the_delay_is_not() -> None:
    count = RestartCount(window_start=1000.0, in_window=3, streak=3)
    assert next_restart(POLICY, count, ok=False, ran_s=1.0, now=1100.0) is None
    assert next_restart(POLICY, count, ok=False, ran_s=1.0, now=1101.0) == (3.0, RestartCount(1101.0, 1, 4))


def test_after_a_good_long_run_the_delay_begins_anew() -> None:
    count = RestartCount(window_start=1000.0, in_window=3, streak=3)
    assert next_restart(POLICY, count, ok=False, ran_s=100.0, now=1200.0) == (
        1.0,
        RestartCount(1200.0, 1, 1),
    )
