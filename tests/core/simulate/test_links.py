from __future__ import annotations

import pytest

from edgerm_core.simulate.links import OVERHEADS, MeteredLink
from edgerm_core.simulate.scenario import LinkSpec
from edgerm_core.testing.simulator.network import DOWN, UP, Connection, Side
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import World


class Peer:
    """Keeps what arrives, and when."""

    listening = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[tuple[float, bytes]] = []
        self.connections: list[Connection | None] = []

    def accept(self, connection: Connection) -> Side:
        return self

    def on_frame(self, connection: Connection, data: bytes) -> None:
        self.heard.append((round(self.world.now, 6), data))

    def on_closed(self, connection: Connection, reason: str) -> None:
        pass


def connected(spec: LinkSpec) -> tuple[MeteredLink, Connection, Peer]:
    world = World(1, Story())
    peer = Peer(world)
    link = MeteredLink(world, "n", spec, peer)
    link.dial(Peer(world), peer.connections.append)
    world.run_until(10.0)
    (connection,) = peer.connections
    assert connection is not None
    return link, connection, peer


@pytest.mark.parametrize("transport", ["ws", "coap"])
def test_frames_and_what_the_transport_adds_are_counted_each_way(transport: str) -> None:
    spec = LinkSpec(transport, jitter_s=0.0)  # type: ignore[arg-type]
    link, connection, _ = connected(spec)
    overhead = OVERHEADS[transport]
    assert link.carried == list(overhead.dialling)
    connection.send(UP, bytes(100))
    connection.send(UP, bytes(20))
    assert link.payload == [120, 0]
    assert link.frames == [2, 0]
    assert link.carried[UP] == overhead.dialling[UP] + 120 + 2 * overhead.frame[UP]
    assert link.carried[DOWN] == overhead.dialling[DOWN] + 2 * overhead.answer[UP]


def test_frames_queue_at_the_speed_of_the_link() -> None:
    link, connection, peer = connected(LinkSpec(latency_s=0.5, jitter_s=0.0, bytes_per_s=1000))
    size = 1000 - OVERHEADS["ws"].frame[UP]
    for letter in (b"a", b"b"):
        connection.send(UP, letter * size)
    link.world.run_until(100.0)
    assert [(at, data[:1]) for at, data in peer.heard] == [(11.5, b"a"), (12.5, b"b")]


def test_lost_frames_come_late_and_cost_their_bytes_again() -> None:
    link, connection, peer = connected(LinkSpec(jitter_s=0.0, loss=0.5))
    for _ in range(200):
        connection.send(UP, bytes(10))
    link.world.run_until(1_000.0)
    assert len(peer.heard) == 200
    once = 200 * (10 + OVERHEADS["ws"].frame[UP])
    assert 1.7 * once < link.carried[UP] < 2.3 * once
    assert link.payload[UP] == 2_000


def test_dialling_is_not_counted_while_nobody_can_hear_it() -> None:
    world = World(1, Story())
    peer = Peer(world)
    link = MeteredLink(world, "n", LinkSpec(), peer)
    link.cut((UP, DOWN))
    link.dial(Peer(world), peer.connections.append)
    world.run_until(100.0)
    assert peer.connections == [None]
    assert (link.carried, link.dialled) == ([0, 0], 0)


def test_a_blob_takes_as_long_as_its_bytes_do() -> None:
    link, _, _ = connected(LinkSpec(latency_s=0.1, jitter_s=0.0, bytes_per_s=1000))
    assert link.fetch_s(5_000) == pytest.approx(5.2)
    assert link.payload == [0, 5_000]
