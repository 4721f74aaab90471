"""Ways to the master that have a bandwidth, lose frames, and count what they carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.simulate.scenario import LinkSpec
from edgerm_core.testing.simulator.network import (
    DOWN,
    UP,
    Connection,
    Link,
    LinkQuality,
    Server,
    Side,
)
from edgerm_core.testing.simulator.world import World

RETRY_S: Final = 1.0
"""A lost frame is sent again after this long, then after twice as long, and so on: TCP's first timeout
(RFC 6298)."""

MAX_RETRIES: Final = 6

KEEPALIVE_S: Final = {"ws": 20.0, "coap": 93.0}
"""After so long without a way through a transport gives up: WebSocket pings; CoAP's MAX_TRANSMIT_WAIT
(RFC 7252, section 4.8.2)."""


class Overhead(msgspec.Struct, frozen=True):
    """What a transport adds to frames, in bytes, by direction (up, down). Encryption is not counted.

    Attributes:
        frame: around each frame.
        answer: what the other direction carries for it.
        dialling: to begin a connection.
    """

    frame: tuple[int, int]
    answer: tuple[int, int]
    dialling: tuple[int, int]


OVERHEADS: Final = {
    # WebSocket header with and without mask, TCP and IPv4 headers with timestamps; an ACK for each frame;
    # SYN, ACK and the HTTP upgrade.
    "ws": Overhead((6 + 52, 2 + 52), (52, 52), (112 + 290, 60 + 180)),
    # CoAP header, path and number as in docs/protocol/coap.md, UDP and IPv4 headers.
    "coap": Overhead((19 + 28, 6 + 28), (0, 0), (0, 0)),
}


class MeteredLink(Link):
    """An agent's way to the master.

    Attributes:
        payload: bytes of encoded frames, by direction.
        carried: bytes with the transport's overhead and with what was sent again, by direction.
        frames: by direction.
        dialled: connections that were begun.
    """

    def __init__(self, world: World, name: str, spec: LinkSpec, server: Server) -> None:
        pushes = spec.transport == "ws"
        keepalive_s = KEEPALIVE_S[spec.transport]
        quality = LinkQuality(spec.latency_s, spec.jitter_s, pushes, keepalive_s, MAX_MESSAGE_BYTES)
        super().__init__(world, name, quality, server)
        self.spec = spec
        self.overhead = OVERHEADS[spec.transport]
        self.payload = [0, 0]
        self.carried = [0, 0]
        self.frames = [0, 0]
        self.dialled = 0
        self._chance = world.luck(f"loss/{name}")
        self._free_at = [0.0, 0.0]

    def dial(self, side: Side, on_done: Callable[[Connection | None], None]) -> None:
        """See `Link.dial`. Attempts that nobody can hear are not counted."""
        if not (self.blocked(UP) or self.blocked(DOWN)):
            self.dialled += 1
            for way in (UP, DOWN):
                self.carried[way] += self.overhead.dialling[way]
        super().dial(side, on_done)

    def transit_s(self, way: int, data: bytes | None) -> float:
        """See `Link.transit_s`: behind what was sent before, at the link's speed, and again where lost."""
        if data is None:
            return self.delay_s()
        size = len(data) + self.overhead.frame[way]
        self.frames[way] += 1
        self.payload[way] += len(data)
        self.carried[way] += size
        self.carried[DOWN if way == UP else UP] += self.overhead.answer[way]
        late_s = 0.0
        if self.spec.loss:
            for attempt in range(MAX_RETRIES):
                if self._chance.random() >= self.spec.loss:
                    break
                self.carried[way] += size
                late_s += RETRY_S * 2.0**attempt
        return self._busy_s(way, size) + late_s + self.delay_s()

    def fetch_s(self, size: int) -> float:
        """Return how long a blob of that size takes, and count it."""
        self.payload[DOWN] += size
        self.carried[DOWN] += size
        return self._busy_s(DOWN, size) + 2 * self.delay_s()

    def _busy_s(self, way: int, size: int) -> float:
        if self.spec.bytes_per_s is None:
            return 0.0
        begins = max(self.world.now, self._free_at[way])
        self._free_at[way] = begins + size / self.spec.bytes_per_s
        return self._free_at[way] - self.world.now
