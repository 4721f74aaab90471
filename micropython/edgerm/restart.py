"""Whether, and when, a run that ended starts again in place: as edgerm_core/agent/restart.py."""

import time


def next_restart(policy, count, ok, ran_ms, lost):
    """Return the delay in milliseconds and the new count, or None: no restart.

    Intervals are counted one after the other, as Nomad does: three numbers instead of a list of times.

    Parameters:
        policy: from the spec.
        count: when the current interval began in Unix seconds, restarts since, and restarts since a run
        last
            went well for a whole interval.
        ok: whether the run ended well.
        ran_ms: how long it ran.
        lost: the board was restarted under it. A service that crashes its board would do so for ever, so
        its
            losses are counted although its own ends are not.
    """
    on = policy.get("on", "never")
    if on == "never" or (on == "failure" and ok):
        return None
    interval_s = policy.get("interval_s", 300)
    begun, n, streak = count
    now_s = int(time.time())
    if now_s - begun > interval_s:
        begun, n = now_s, 0
    elif now_s < begun:
        # Most boards forget the time when they lose power: that alone begins no new interval.
        begun = now_s
    if (on == "failure" or lost) and n >= policy.get("attempts", 3):
        return None
    if ran_ms >= interval_s * 1000:
        streak = 0
    delay_s = min(policy.get("max_delay_s", 60), policy.get("delay_s", 1) * 2 ** min(streak, 16))
    return int(delay_s * 1000), (begun, n + 1, streak + 1)
