"""A channel of the simulated master puts everything into its gateway's connection."""

from __future__ import annotations

from edgerm_core.codec import decode_batch
from edgerm_core.ids import AgentId
from edgerm_core.limits import RELAY_ENVELOPE_BYTES
from edgerm_core.messages import RelayClose, Relayed, RelayOpen
from edgerm_core.testing.simulator.network import DOWN, LinkQuality
from edgerm_core.testing.simulator.relay import RelayChannel

from .test_network import Net


def channel(put: list[bytes], *, device_bytes: int = 0) -> RelayChannel:
    net = Net(LinkQuality(max_frame_bytes=2048))
    return RelayChannel(net.connection, AgentId("g1"), RelayOpen(7, "p", device_bytes), put.append)


def test_frames_and_the_end_travel_inside() -> None:
    put: list[bytes] = []
    each = channel(put)
    each.send(DOWN, b"frame")
    each.close(DOWN, "enough")
    each.vanish(DOWN)
    assert [decode_batch(data) for data in put] == [[Relayed(7, b"frame")], [RelayClose(7, "enough")]]


def test_frames_fit_into_the_gateways_own_and_into_the_devices() -> None:
    assert channel([]).quality.max_frame_bytes == 2048 - RELAY_ENVELOPE_BYTES
    assert channel([], device_bytes=100).quality.max_frame_bytes == 100
