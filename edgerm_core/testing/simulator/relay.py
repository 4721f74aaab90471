"""A device's channel inside its gateway's connection, as `master.relay` makes it."""

from __future__ import annotations

from collections.abc import Callable

from edgerm_core.codec import encode
from edgerm_core.ids import AgentId
from edgerm_core.limits import RELAY_ENVELOPE_BYTES
from edgerm_core.messages import RelayClose, Relayed, RelayOpen
from edgerm_core.testing.simulator.network import Connection, LinkQuality


class RelayChannel:
    """What the master has in place of a connection.

    Parameters:
        outer: the gateway's connection.
        via: the gateway.
        opened: what the gateway said about the channel.
        put: queues an encoded message for the gateway.

    Attributes:
        name: for the story.
        quality: of the channel: how large its frames may be.
    """

    def __init__(
        self, outer: Connection, via: AgentId, opened: RelayOpen, put: Callable[[bytes], None]
    ) -> None:
        self.via = via
        self.opened = opened
        self.name = f"{outer.name}#{opened.channel}"
        largest = outer.quality.max_frame_bytes - RELAY_ENVELOPE_BYTES
        max_frame_bytes = min(opened.max_message_bytes or largest, largest)
        self.quality = LinkQuality(max_frame_bytes=max_frame_bytes)
        self._put = put

    def send(self, way: int, data: bytes) -> None:
        """See `Connection.send`."""
        self._put(encode(Relayed(self.opened.channel, data)))

    def close(self, way: int, reason: str) -> None:
        """See `Connection.close`."""
        self._put(encode(RelayClose(self.opened.channel, reason)))

    def vanish(self, way: int) -> None:
        """See `Connection.vanish`: it goes with the gateway's own connection."""
