"""Sleep while nothing runs: what of the session has to outlive a deep sleep is kept in the RTC's memory."""

from edgerm import cbor
from edgerm.session import REGISTERED


def sleep(agent, wait_ms):
    """Sleep so long, if nothing would be missed."""
    session = agent.session
    if session.client.waiting or agent.fetcher is not None or agent.has_words(agent.now):
        return
    if agent.config["sleep"] == "light":
        agent.machine.lightsleep(wait_ms)
    elif session.idle():
        # The program begins anew when the board wakes up.
        saved = [session.name, session.number, session.heartbeat_ms, session.lease_ms, agent.boot_id]
        buf = bytearray(128)
        rtc = agent.machine.RTC()
        if hasattr(rtc, "memory"):
            rtc.memory(bytes(buf[: cbor.put(buf, 0, saved)]))
        agent.machine.deepsleep(max(wait_ms, session.beat_at() - agent.now))


def wake_up(agent):
    """Go on with the session of before a deep sleep, if there is one."""
    rtc = agent.machine.RTC()
    if not hasattr(rtc, "memory"):
        return
    try:
        saved = cbor.Reader(rtc.memory()).read()
    except ValueError:
        return
    # Once: after a power cut on the way the number would be that of an exchange before the last one.
    rtc.memory(b"")
    session = agent.session
    if saved[0] != session.name:
        return
    _, session.number, session.heartbeat_ms, session.lease_ms, agent.boot_id = saved
    session.state = REGISTERED
    agent.runs.came()
    session.connect(0)
