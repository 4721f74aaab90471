"""The network keeps the contract of a connection while it lives, and breaks it only as transports may."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator.network import DOWN, UP, Connection, Link, LinkQuality, Nobody, Side
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import World


class End:
    """Notes what one side sees."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = ""

    def on_frame(self, connection: Connection, data: bytes) -> None:
        self.frames.append(data)

    def on_closed(self, connection: Connection, reason: str) -> None:
        self.closed = reason

    def still_open(self) -> bool:
        return not self.closed


class Master:
    def __init__(self) -> None:
        self.listening = True
        self.end = End()

    def accept(self, connection: Connection) -> Side:
        return self.end


class Net:
    """A link, dialled once."""

    def __init__(self, quality: LinkQuality | None = None, seed: int = 1) -> None:
        self.world = World(seed, Story())
        self.server = Master()
        self.link = Link(self.world, "a1", quality or LinkQuality(), self.server)
        self.peer = End()
        found: list[Connection | None] = []
        self.link.dial(self.peer, found.append)
        self.world.run_until(30.0)
        connection = found[0]
        assert connection is not None
        self.connection = connection

    def send_many(self, way: int, count: int = 20) -> list[bytes]:
        sent = [bytes([number]) for number in range(count)]
        for data in sent:
            self.connection.send(way, data)
        return sent

    def later(self, seconds: float = 1000.0) -> None:
        self.world.run_until(self.world.now + seconds)


@pytest.mark.parametrize("way", [UP, DOWN])
def test_frames_arrive_once_and_in_order_whatever_the_jitter(way: int) -> None:
    net = Net(LinkQuality(0.01, 5.0))
    sent = net.send_many(way)
    net.later()
    assert (net.server.end if way == UP else net.peer).frames == sent


def test_a_partition_holds_frames_back_and_keeps_their_order() -> None:
    net = Net(LinkQuality(0.5, 1.0, keepalive_s=None))
    first = net.send_many(UP, 5)
    net.link.cut((UP,))
    second = [b"x" + data for data in net.send_many(UP, 5)]
    for data in second:
        net.connection.send(UP, data)
    net.later(60.0)
    assert net.server.end.frames == []
    net.link.heal((UP,))
    third = [b"y"]
    net.connection.send(UP, b"y")
    net.later(60.0)
    assert net.server.end.frames == [*first, *first, *second, *third]


def test_a_partition_one_way_lets_the_other_way_through() -> None:
    net = Net(LinkQuality(keepalive_s=None))
    net.link.cut((UP,))
    net.connection.send(UP, b"up")
    net.connection.send(DOWN, b"down")
    net.later()
    assert net.server.end.frames == []
    assert net.peer.frames == [b"down"]


def test_a_long_partition_ends_a_connection_with_keepalive() -> None:
    net = Net(LinkQuality(keepalive_s=20.0))
    net.link.cut((DOWN,))
    net.later(19.0)
    assert net.peer.still_open()
    net.later(20.0)
    assert net.peer.closed
    assert net.server.end.closed


def test_of_what_is_in_flight_when_it_breaks_a_first_part_arrives() -> None:
    for seed in range(20):
        net = Net(LinkQuality(1.0, 0.0), seed)
        sent = net.send_many(UP)
        net.connection.reset()
        net.later()
        assert net.server.end.frames == sent[: len(net.server.end.frames)]
        assert net.server.end.closed
        assert net.peer.closed


def test_what_was_sent_before_an_orderly_close_arrives() -> None:
    net = Net()
    sent = net.send_many(DOWN)
    net.connection.close(DOWN, "goodbye")
    net.later()
    assert net.peer.frames == sent
    assert net.peer.closed == "goodbye"


def test_whom_a_nat_has_forgotten_learns_it_by_sending() -> None:
    net = Net(LinkQuality(keepalive_s=None))
    net.connection.forget_binding()
    net.connection.send(DOWN, b"lost")
    net.later()
    assert net.peer.frames == []
    assert net.peer.still_open()
    net.connection.send(UP, b"lost too")
    net.later()
    assert net.peer.closed == "reset by peer"
    assert net.server.end.frames == []
    assert net.server.end.still_open()


def test_a_machine_without_power_says_no_goodbye() -> None:
    net = Net(LinkQuality(keepalive_s=None))
    net.connection.vanish(UP)
    net.later()
    assert net.server.end.still_open()
    net.connection.send(DOWN, b"anybody there?")
    net.later()
    assert net.server.end.closed == "reset by peer"


def test_where_the_master_cannot_push_its_frames_wait_for_a_question() -> None:
    net = Net(LinkQuality(push=False, keepalive_s=None, max_frame_bytes=10))
    net.connection.send(DOWN, b"12345")
    net.connection.send(DOWN, b"67890")
    net.connection.send(DOWN, b"more")
    net.later()
    assert net.peer.frames == []
    net.connection.send(UP, b"?")
    net.later()
    assert net.peer.frames == [b"1234567890", b"more"]


def test_who_dials_a_master_that_is_away_is_told() -> None:
    world = World(1, Story())
    server = Master()
    server.listening = False
    found: list[Connection | None] = []
    Link(world, "a1", LinkQuality(), server).dial(End(), found.append)
    world.run_until(60.0)
    assert found == [None]


def test_lost_frames_are_repeated_in_order_until_the_connection_is_given_up() -> None:
    net = Net(LinkQuality(loss=0.3))
    sent = net.send_many(UP, 10)
    net.later()
    assert net.server.end.frames == sent[: len(net.server.end.frames)], "in order, and none is left out"
    net = Net(LinkQuality())
    net.link.loss = 1.0
    net.connection.send(UP, b"x")
    net.later()
    assert not net.server.end.frames
    assert net.peer.closed == net.server.end.closed == "connection reset"


def test_who_moves_away_is_not_reached_and_reaches_nobody_else() -> None:
    net = Net(LinkQuality(keepalive_s=None))
    net.connection.send(UP, b"on its way")
    net.link.move(Master())
    net.later()
    assert not net.server.end.frames
    assert net.peer.closed == "out of reach"
    assert net.server.end.still_open(), "nobody tells it"
    found: list[Connection | None] = []
    net.link.dial(End(), found.append)
    net.later()
    assert found == [None]
    net.link.move(None)
    net.link.dial(End(), found.append)
    net.later()
    assert found[1] is not None


def test_nobody_answers_where_nobody_is() -> None:
    net = Net()
    net.link.server = Nobody()
    found: list[Connection | None] = []
    net.link.dial(End(), found.append)
    net.later()
    assert found == [None]
