from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent.backoff import reconnect_delay_s
from edgerm_core.limits import RECONNECT_BASE_S, RECONNECT_MAX_S


def test_the_bound_doubles_until_the_limit() -> None:
    bounds = [reconnect_delay_s(failures, 0.5) * 2 for failures in range(1, 12)]
    assert bounds[:4] == [RECONNECT_BASE_S * 2**n for n in range(4)]
    assert bounds[-1] == RECONNECT_MAX_S


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_the_delay_is_anywhere_below_the_bound(failures: int, jitter: float) -> None:
    assert 0 <= reconnect_delay_s(failures, jitter) <= RECONNECT_MAX_S
