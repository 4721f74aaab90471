"""The network: ordered streams of whole frames that are slow, stop, break and are forgotten by NATs.

Modelled on the contract of `interfaces.Connection`. While a connection lives, frames arrive whole, in
order and at most once. When it breaks, of what was in flight a first part arrives and the rest does not,
and each side learns of it in its own time, or never. Frames of an old connection may arrive after those
of a new one. Nothing else is reordered, and nothing is duplicated: no transport may do that.

A partition holds frames back, in either direction or in both. Whether a connection outlives it depends on
how long it lasts and on the transport's own keepalive, if it has one. Where the master cannot push
(`push=False`), what it sends waits and travels with the answer to the peer's next frame. Where frames
are lost on their way (`loss`), the transport repeats them, which takes its time, and in the end gives the
connection up.

A host that moves loses its connections, and reaches one server alone until it is back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.testing.simulator.world import World

UP: Final = 0
"""From the peer that dials to the master."""

DOWN: Final = 1
"""From the master to the peer."""

DIAL_TIMEOUT_S: Final = 20.0
"""After which a transport gives up dialling somebody who does not answer."""

ANSWERS_S: Final = (0.1, 0.6, 1.6, 3.6, 7.6)
"""After a frame of a peer that cannot be pushed to, its transport is given what waits after so long, and
so long again: who got an empty answer to a question asks again soon."""

ACK_TIMEOUT_S: Final = 2.0
MAX_RETRANSMIT: Final = 4
"""A lost frame is sent again after so long, then after twice as long, and so on, so many times (RFC 7252,
section 4.8); then the connection is given up."""


class LinkQuality(msgspec.Struct, frozen=True, omit_defaults=True):
    """One host's way to the master.

    Attributes:
        delay_s, jitter_s: of a frame, each way: a fixed part and a random one.
        push: whether the master's frames reach the host by themselves.
        keepalive_s: after this long without a way through in both directions the transport gives up;
            None: it never notices.
        max_frame_bytes: largest frame it takes.
        loss: probability that a frame is lost and has to be repeated.
    """

    delay_s: float = 0.01
    jitter_s: float = 0.02
    push: bool = True
    keepalive_s: float | None = 20.0
    max_frame_bytes: int = MAX_MESSAGE_BYTES
    loss: float = 0.0


class Side(Protocol):
    """What stands at one end of a connection."""

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """A frame arrived."""
        ...

    def on_closed(self, connection: Connection, reason: str) -> None:
        """The connection is gone, as far as this side can tell. Nothing follows."""
        ...


class Server(Protocol):
    """What listens at an address: the master, or a gateway."""

    @property
    def listening(self) -> bool: ...

    def accept(self, connection: Connection) -> Side:
        """Take a new connection in."""
        ...


class Nobody:
    """An address where nobody listens."""

    listening = False

    def accept(self, connection: Connection) -> Side:
        """See `Server.accept`."""
        raise AssertionError("nobody is there")


class Link:
    """One host's way to the master, with its connections and its faults.

    Attributes:
        server: whom it dials next.
        loss: of single frames, as in its quality while faults go on.
    """

    def __init__(self, world: World, name: str, quality: LinkQuality, server: Server) -> None:
        self.world = world
        self.name = name
        self.quality = quality
        self.luck = world.luck(f"link/{name}")
        self.connections: list[Connection] = []
        self.server = server
        self.loss = quality.loss
        self._losses = world.luck(f"loss/{name}")
        #: The only server that is within reach; None: all are.
        self._only: Server | None = None
        self._cuts = [0, 0]
        self._extra_delay_s = 0.0
        self._count = 0

    # --- faults -------------------------------------------------------------------------------

    def blocked(self, way: int) -> bool:
        """Whether frames of that direction are held back."""
        return self._cuts[way] > 0

    def cut(self, ways: tuple[int, ...]) -> None:
        """Hold back frames until as many `heal`s have come."""
        for way in ways:
            self._cuts[way] += 1
        for connection in list(self.connections):
            connection.path_changed()

    def heal(self, ways: tuple[int, ...]) -> None:
        """Undo one `cut`."""
        for way in ways:
            self._cuts[way] -= 1
        for connection in list(self.connections):
            connection.path_changed()

    def slow(self, extra_delay_s: float) -> None:
        """Add to the delay of every frame sent from now on; negative: take it back."""
        self._extra_delay_s = max(0.0, self._extra_delay_s + extra_delay_s)

    def move(self, only: Server | None) -> None:
        """Go where one server alone is within reach, or back to where all are.

        Connections to others are lost: this host notices soon, the other side by its keepalive or never.
        """
        self._only = only
        for connection in list(self.connections):
            if not self._reaches(connection.server):
                connection.part()

    def _reaches(self, server: Server) -> bool:
        return self._only is None or self._only is server

    def delay_s(self) -> float:
        """Return the delay of the next frame."""
        return self.quality.delay_s + self._extra_delay_s + self.luck.random() * self.quality.jitter_s

    def transit_s(self, way: int, data: bytes | None) -> float | None:
        """Return how long a frame that is sent now travels; None: its transport gives it up.

        Parameters:
            data: None: the end of a stream.
        """
        if not self.loss:
            return self.delay_s()
        late_s = 0.0
        for attempt in range(MAX_RETRANSMIT + 1):
            if self._losses.random() >= self.loss:
                return late_s + self.delay_s()
            late_s += ACK_TIMEOUT_S * 2.0**attempt
        return None

    # --- dialling -----------------------------------------------------------------------------

    def dial(self, side: Side, on_done: Callable[[Connection | None], None]) -> None:
        """Connect `side` to the server; `on_done` gets the connection, or None if nobody answers."""
        server = self.server

        def arrive() -> None:
            if self.blocked(UP) or self.blocked(DOWN) or not self._reaches(server):
                self.world.after(DIAL_TIMEOUT_S, lambda: on_done(None))
            elif not server.listening:
                self.world.after(self.delay_s(), lambda: on_done(None))
            else:
                self._count += 1
                connection = Connection(self, f"{self.name}/{self._count}", side)
                connection.server = server
                self.connections.append(connection)
                connection.sides[UP] = server.accept(connection)

                def done() -> None:
                    # It may have been lost again on the way back.
                    on_done(connection if connection.sides[DOWN] is side else None)

                self.world.after(self.delay_s(), done)

        self.world.after(self.delay_s(), arrive)


class _Lane:
    """One direction of a connection: frames on their way, in order. None ends the stream."""

    def __init__(self) -> None:
        self.flying: deque[tuple[bytes | None, str]] = deque()
        self.held: deque[tuple[bytes | None, str]] = deque()
        self.last_arrival = 0.0
        #: Frames still to be delivered before the rest is lost; None: all of them.
        self.broken_after: int | None = None


class Connection:
    """An ordered stream of frames each way.

    Attributes:
        name: for the story.
        sides: who receives what travels UP (the master) and DOWN (the peer); None: has closed or is gone.
        waiting: where the master cannot push, what waits for the peer's next frame.
        on_room: called when something of that has left.
    """

    def __init__(self, link: Link, name: str, client: Side) -> None:
        self.link = link
        self.server = link.server
        self.name = name
        self.quality = link.quality
        self.sides: list[Side | None] = [None, client]
        self.waiting: list[tuple[bytes | None, str]] = []
        self.on_room: Callable[[], None] = lambda: None
        self._world = link.world
        self._lanes = (_Lane(), _Lane())
        self._forgotten_by_nat = False
        self._blocked_since: float | None = None
        self.path_changed()

    @property
    def luck(self) -> random.Random:
        """The link's stream."""
        return self.link.luck

    # --- what the sides do --------------------------------------------------------------------

    def send(self, way: int, data: bytes) -> None:
        """Send a frame `way`; whether it arrives is the network's to say."""
        if self._forgotten_by_nat:
            if way == UP:
                # The NAT makes a new binding, and the master's host knows nothing of it: a reset.
                self._world.after(2 * self.link.delay_s(), lambda: self._end(DOWN, "reset by peer"))
            return
        if way == DOWN and not self.quality.push:
            self.waiting.append((data, ""))
            return
        self._put(way, data, "")

    def close(self, way: int, reason: str) -> None:
        """The side that sends `way` closes in good order: what it sent before arrives first."""
        mine = DOWN if way == UP else UP
        if self.sides[mine] is None:
            return
        self.sides[mine] = None
        if self._forgotten_by_nat:
            return
        if way == DOWN and not self.quality.push:
            self.waiting.append((None, reason))
            return
        self._put(way, None, reason)

    def vanish(self, way: int) -> None:
        """The host of the side that sends `way` lost its power: nobody tells the other side.

        The other side finds out by its transport's keepalive, by a lease, or never.
        """
        mine, other = (DOWN, UP) if way == UP else (UP, DOWN)
        self.sides[mine] = None
        self._lanes[way].flying.clear()
        self._lanes[way].held.clear()
        if self.quality.keepalive_s is not None:
            self._world.after(self.quality.keepalive_s, lambda: self._end(other, "keepalive timeout"))

    # --- faults -------------------------------------------------------------------------------

    def reset(self) -> None:
        """Break: of what is in flight each way, a first part arrives; then both sides learn of it."""
        for way in (UP, DOWN):
            lane = self._lanes[way]
            lane.broken_after = self.luck.randint(0, len(lane.flying))
            notice_s = self.luck.choice((0.0, 0.05, 1.0, 5.0))
            if not lane.broken_after:
                self._world.after(notice_s, lambda way=way: self._end(way, "connection reset"))  # type: ignore[misc]

    def part(self) -> None:
        """The peer is out of reach: what is on its way is lost."""
        for lane in self._lanes:
            lane.flying.clear()
            lane.held.clear()
            lane.broken_after = 0
        self._world.after(self.luck.choice((0.05, 1.0, 5.0)), lambda: self._end(DOWN, "out of reach"))
        if self.quality.keepalive_s is not None:
            self._world.after(self.quality.keepalive_s, lambda: self._end(UP, "keepalive timeout"))

    def forget_binding(self) -> None:
        """A NAT on the way forgets the connection: nothing comes down, and what goes up is refused."""
        self._forgotten_by_nat = True
        if self.quality.keepalive_s is not None:
            for way in (UP, DOWN):
                self._world.after(
                    self.quality.keepalive_s,
                    lambda way=way: self._end(way, "keepalive timeout"),  # type: ignore[misc]
                )

    def path_changed(self) -> None:
        """The link was cut or healed."""
        for way in (UP, DOWN):
            lane = self._lanes[way]
            if lane.held and not self.link.blocked(way):
                # They go before what was sent later and is still on its way.
                held, lane.held = lane.held, deque()
                lane.flying.extendleft(reversed(held))
                for _ in held:
                    self._world.after(self.link.delay_s(), lambda way=way: self._arrive(way))  # type: ignore[misc]
        if not (self.link.blocked(UP) or self.link.blocked(DOWN)):
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = since = self._world.now
            keepalive_s = self.quality.keepalive_s
            if keepalive_s is not None:
                for way in (UP, DOWN):
                    late_s = self.luck.uniform(1.0, 1.5) * keepalive_s
                    self._world.after(late_s, lambda way=way: self._keepalive(way, since))  # type: ignore[misc]

    def _keepalive(self, way: int, since: float) -> None:
        if self._blocked_since == since:
            self._end(way, "keepalive timeout")

    # --- on the way ---------------------------------------------------------------------------

    def _put(self, way: int, data: bytes | None, reason: str) -> None:
        lane = self._lanes[way]
        if lane.broken_after is not None:
            return
        transit_s = self.link.transit_s(way, data)
        if transit_s is None:
            self.reset()
            return
        lane.last_arrival = max(lane.last_arrival, self._world.now + transit_s)
        lane.flying.append((data, reason))
        self._world.at(lane.last_arrival, lambda: self._arrive(way))

    def _arrive(self, way: int) -> None:
        lane = self._lanes[way]
        if not lane.flying:
            return
        data, reason = lane.flying.popleft()
        if lane.broken_after is not None:
            if not lane.broken_after:
                lane.flying.clear()
                self._end(way, "connection reset")
                return
            lane.broken_after -= 1
        elif self._forgotten_by_nat:
            return
        elif lane.held or self.link.blocked(way):
            lane.held.append((data, reason))
            return
        self._deliver(way, data, reason)
        if lane.broken_after == 0:
            lane.flying.clear()
            self._end(way, "connection reset")

    def _deliver(self, way: int, data: bytes | None, reason: str) -> None:
        side = self.sides[way]
        if side is None:
            if data is not None:
                # Nobody is there any more: the sender is told, behind all that is on its way to it.
                self._put(DOWN if way == UP else UP, None, "reset by peer")
            return
        if data is None:
            self._end(way, reason or "closed by peer")
            return
        self._world.story.mark(self._world.now, self.name, data)
        side.on_frame(self, data)
        if way == UP and not self.quality.push:
            for wait_s in ANSWERS_S:
                self._world.after(wait_s * self.luck.uniform(0.5, 1.5), self._answer)

    def _answer(self) -> None:
        """Send what waits for the peer in one frame, or as much as one takes."""
        if self._forgotten_by_nat or self.sides[DOWN] is None:
            return
        pieces: list[bytes] = []
        size = 0
        while self.waiting:
            data, reason = self.waiting[0]
            if data is None:
                if pieces:
                    break
                self.waiting.clear()
                self._put(DOWN, None, reason)
                return
            if pieces and size + len(data) > self.quality.max_frame_bytes:
                break
            pieces.append(data)
            size += len(data)
            del self.waiting[0]
        if pieces:
            self._put(DOWN, b"".join(pieces), "")
            self.on_room()
        if self.waiting and self.waiting[0][0] is None:
            _, reason = self.waiting.pop(0)
            self._put(DOWN, None, reason)

    def _end(self, way: int, reason: str) -> None:
        """The side that receives `way` learns that it is over."""
        side, self.sides[way] = self.sides[way], None
        if side is not None:
            side.on_closed(self, reason)
        if self.sides == [None, None] and self in self.link.connections:
            self.link.connections.remove(self)
