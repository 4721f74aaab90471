"""How long to wait before dialling again."""

from __future__ import annotations

from edgerm_core.limits import RECONNECT_BASE_S, RECONNECT_MAX_S


def reconnect_delay_s(failures: int, jitter: float) -> float:
    """Return the wait in seconds after `failures` failures in a row (1 or more).

    Full jitter: anywhere between zero and the exponential bound, so that ten thousand agents whose
    master restarted do not come back in step.

    Parameters:
        jitter: a random number from 0 up to, but not including, 1.
    """
    assert failures >= 1
    assert 0 <= jitter < 1
    # Beyond 2**16 the bound has long been reached; the cap keeps the power small.
    return jitter * min(RECONNECT_MAX_S, RECONNECT_BASE_S * 2.0 ** min(failures - 1, 16))
