"""What holds of a gateway after every event. Tests check it after each one; daemons never do."""

from __future__ import annotations

from typing import Final

from edgerm_core.config import GatewayConfig
from edgerm_core.gateway.standin import Upstream
from edgerm_core.gateway.state import Gateway
from edgerm_core.limits import MAILBOX_BYTES, MAILBOX_MESSAGES, MAX_PASSING_UPDATES

ANSWERS: Final = 16
"""Messages beside orders that a mailbox holds at most: answers to what its device asked."""


def check(gateway: Gateway, config: GatewayConfig) -> None:
    """Check every invariant.

    Raises:
        AssertionError: naming the first that does not hold.
    """
    assert len(gateway.standins) <= config.max_devices, "more devices than its limit"
    assert gateway.custody.bytes_held <= config.custody_bytes, "custody is bounded"
    for agent_id, standin in gateway.standins.items():
        where = f"device {agent_id}"
        assert standin.id == agent_id, f"{where}: its stand-in is of {standin.id}"
        assert len(standin.mailbox) <= MAILBOX_MESSAGES + ANSWERS, f"{where}: a mailbox is bounded"
        assert standin.mailbox.waiting_bytes <= MAILBOX_BYTES + (1 << 20), f"{where}: a mailbox is bounded"
        assert standin.channel is None or gateway.uplink.is_open, f"{where}: a channel without an uplink"
        assert (standin.channel is None) == (standin.upstream is Upstream.CLOSED), (
            f"{where}: {standin.upstream.name} on channel {standin.channel}"
        )
        assert standin.channel is None or gateway.uplink.device_on(standin.channel) is standin, (
            f"{where}: its channel {standin.channel} belongs to somebody else"
        )
        assert standin.passing_count() <= MAX_PASSING_UPDATES + 1, f"{where}: too many updates pass"
        assert gateway.uplink.is_open or not standin.passing, f"{where}: updates on their way nowhere"
