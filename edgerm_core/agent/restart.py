"""Whether, and when, a run that ended starts again in place."""

from __future__ import annotations

import msgspec

from edgerm_core.tasks import RestartPolicy


class RestartCount(msgspec.Struct, frozen=True, array_like=True):
    """What a run has used up of its policy.

    Attributes:
        window_start: when the interval that is being counted began.
        in_window: restarts since then.
        streak: restarts since a run last went well for a whole interval; sets the delay.
    """

    window_start: float = 0.0
    in_window: int = 0
    streak: int = 0


def next_restart(
    policy: RestartPolicy,
    count: RestartCount,
    *,
    ok: bool,
    ran_s: float,
    now: float,
    lost: bool = False,
) -> tuple[float, RestartCount] | None:
    """Return the delay in seconds before the next start and the new count, or None: no restart.

    Intervals are counted as Nomad's restart tracker does, one after the other and not sliding: two
    numbers instead of a list of times, at the price of up to twice the attempts across a boundary.

    Parameters:
        ok: whether the run ended well.
        ran_s: how long it ran.
        lost: the agent died with it. A service that takes its agent down with it would do so for ever,
            so its losses are counted although its own ends are not.
    """
    if policy.on == "never" or (policy.on == "failure" and ok):
        return None
    if now - count.window_start > policy.interval_s:
        count = RestartCount(now, 0, count.streak)
    if (policy.on == "failure" or lost) and count.in_window >= policy.attempts:
        return None  # A service ("always") goes on for ever; the growing delay keeps it bounded.
    streak = 0 if ran_s >= policy.interval_s else count.streak
    delay_s = min(policy.max_delay_s, policy.delay_s * 2.0 ** min(streak, 32))
    return delay_s, RestartCount(count.window_start, count.in_window + 1, streak + 1)
