"""The listening side of a connection: one device's session, fed by its exchanges.

A session has room for one frame that waits to be fetched; `send` waits while it is taken, so that the
master joins what it has to say meanwhile into one frame. At most one exchange is under way:

    request n arrives -> its frame goes to the inbox -> answered by the next `send`,
    or with what waits after ANSWER_WAIT_S, or at once if it brought no frame or says that more follow

The last answer is kept until request n + 1 says that it arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_transport_coap.blobs import BlobReader, Windows
from edgerm_transport_coap.blocks import Assembly, Block, respond_in_blocks
from edgerm_transport_coap.config import (
    ACK_TIMEOUT_S,
    INBOX_FRAMES,
    REASON_BYTES,
    ROUND_TRIP_MARGIN,
    SESSION_TIMEOUT_ROUND_TRIPS,
    SESSION_TIMEOUT_S,
    STUCK_INBOX_FRAMES,
)
from edgerm_transport_coap.message import (
    BLOCK1,
    CHANGED,
    CONFLICT,
    CONTENT,
    CREATED,
    EMPTY_FRAME,
    LOCATION_PATH,
    MORE,
    NOT_FOUND,
    OBSERVE,
    SIZE1,
    TOO_LARGE,
    Options,
    uint,
)
from edgerm_transport_coap.request import ACKNOWLEDGED, TIMED_OUT, Request, nothing

OPENING: Final = 0
"""The number of the exchange that opened the session."""


class Session(Connection):
    """One device's session. `resources.py` feeds it, the master's handler reads and writes it.

    Parameters:
        name: who the peer is.
        opening: the request that opened it; answered like an exchange.
        max_message_bytes: of frames down, as the device says.
        max_received_bytes: of frames up.
        round_trip_s: how long a datagram may take there and back because the device sleeps; 0: not given.
        windows: where pieces of blobs are kept.
    """

    identity = None

    __slots__ = (
        "_answer",
        "_assembly",
        "_bell",
        "_blobs",
        "_closed_here",
        "_held",
        "_inbox",
        "_leave",
        "_loop",
        "_max_received_bytes",
        "_number",
        "_pending",
        "_reader",
        "_remote",
        "_repeated",
        "_sender",
        "_stop_proving",
        "_waiting",
        "_windows",
        "bell_count",
        "ended",
        "heard_at",
        "local",
        "max_message_bytes",
        "name",
        "peer",
        "proven",
        "push",
        "repeat_s",
        "timeout_s",
    )

    def __init__(
        self,
        name: bytes,
        opening: Request,
        *,
        max_message_bytes: int,
        max_received_bytes: int,
        round_trip_s: float,
        windows: Windows,
    ) -> None:
        self.name = name
        self.peer = opening.peer
        self.local = opening.local
        #: See `Connection.push`: whether the device listens for the bell.
        self.push = False
        self.max_message_bytes = max_message_bytes
        self.repeat_s = max(ACK_TIMEOUT_S, ROUND_TRIP_MARGIN * round_trip_s)
        self.timeout_s = max(SESSION_TIMEOUT_S, SESSION_TIMEOUT_ROUND_TRIPS * round_trip_s)
        #: Why the session has ended; empty while it goes on.
        self.ended = ""
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()
        #: Whether the device has done anything but open the session.
        self.proven = False
        #: Made when they are needed first: sessions are many.
        self._blobs: BlobReader | None = None
        self._windows = windows
        self._assembly: Assembly | None = None
        self._max_received_bytes = max_received_bytes
        #: The last place that the device has proven to be.
        self._remote = opening.remote
        #: Says that the session does not live there any more.
        self._leave = opening.settle()
        self._number = OPENING
        #: The last answer, until the next exchange: frame, and whether more waits.
        self._answer: tuple[bytes | None, bool] = (None, False)
        #: Ends the question whether the device is at another address now.
        self._stop_proving: Callable[[], None] = nothing
        self._pending: Request | None = None
        #: The last one whose answer is sent until it is confirmed. No other is kept: sessions are many.
        self._repeated: Request | None = None
        self._inbox: list[bytes] = []  # A deque costs each of many sessions half a KiB more.
        #: The frame of the exchange under way while the inbox has no room for it.
        self._held: bytes | None = None
        self._waiting: bytes | None = None
        self._closed_here = False
        self._reader: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._bell: Bell | None = None
        #: Orders notifications (RFC 7641, section 4.4).
        self.bell_count = 0

    # --- the master's side --------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        self._check_size(data)
        if self._blobs is not None and self._blobs.asking:
            data = self._blobs.intercept(data)
            if not data:
                return
        while not self.ended:
            if self._say_or_keep(data):
                return
            self._sender = self._loop.create_future()
            self._admit_held()
            try:
                await self._sender
            finally:
                self._sender = None
        raise ConnectionClosed(self.ended)

    def send_nowait(self, data: bytes) -> bool:
        """See `Connection.send_nowait`."""
        self._check_size(data)
        if self.ended:
            raise ConnectionClosed(self.ended)
        if self._waiting is not None and (
            self._pending is None or self._held is not None or not self._fits(self._waiting)
        ):
            return False
        if self._blobs is not None and self._blobs.asking:
            data = self._blobs.intercept(data)
            if not data:
                return True
        return self._say_or_keep(data)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self.max_message_bytes:
            raise ValueError(
                f"a message of {len(data)} bytes is too large for {self.peer}, "
                f"which takes {self.max_message_bytes}"
            )

    def _say_or_keep(self, data: bytes) -> bool:
        """Answer with it, or keep it for the next exchange; return whether there was room for either."""
        if self._pending is not None and self._held is None and self._answer_with(data):
            return True
        if self._waiting is not None:
            return False
        self._waiting = data
        self._ring()
        return True

    async def receive(self) -> bytes:
        """See `Connection.receive`."""
        while not self._inbox or self._closed_here:
            if self.ended:
                raise ConnectionClosed(self.ended)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._inbox.pop(0)
        if self._held is not None:
            self._admit_held()
        return frame

    async def close(self, reason: str = "") -> None:
        """See `Connection.close`. What waits is kept for the device for a while, and the reason with it."""
        self.end(f"the master closed the session{f': {reason}' if reason else ''}")

    def end(self, reason: str, *, here: bool = True) -> None:
        """End the session. Idempotent.

        Parameters:
            here: this side wanted it, so that nothing more is received.
        """
        if self.ended:
            self._closed_here = self._closed_here or here
            return
        self.ended = reason[:REASON_BYTES]
        self._closed_here = here
        self._held = None
        if self._blobs is not None:
            self._blobs.close()
        _wake(self._reader)
        _wake(self._sender)
        if self._pending is not None:
            self._answer_pending()
        if self._bell is not None:
            if self._waiting is not None:
                self._ring()
            else:
                self._bell.end(self.ended)

    def leave(self) -> None:
        """After the end: what the session lived on may go. Idempotent."""
        self._leave()
        self._leave = nothing

    # --- exchanges ----------------------------------------------------------------------------

    def open(self, request: Request, frame: bytes | None) -> None:
        """Begin with the frame that came with the opening."""
        self._pending = request
        request.on_late = self._on_late
        self._take(frame)

    def repeat_opening(self, request: Request) -> None:
        """Answer the repetition of the opening."""
        if self._number != OPENING:
            return  # The device has had its answer: this is a late copy.
        if self._pending is not None:
            self._replace_pending(request)
        else:
            self._respond(request, *self._answer)

    def has_whole(self, number: int) -> bool:
        """Return whether all of that exchange's frame is here already."""
        return number == self._number and number != OPENING

    def exchange(self, request: Request, number: int, frame: bytes | None, want: Block) -> None:
        """Carry out exchange `number`, once.

        Parameters:
            want: the block of the answer that the device asks for.
        """
        self.heard_at = self._loop.time()
        request.repeat_s = self.repeat_s
        if self.has_whole(number):
            if self._pending is not None:
                self._replace_pending(request)
            else:
                self._respond(request, *self._answer, want)
        elif number == self._number + 1:
            self._begin(request, number, frame)
        else:
            request.respond(CONFLICT)

    @property
    def assembly(self) -> Assembly:
        """Where the frame of the next exchange is put together, if it comes in blocks."""
        self._assembly = self._assembly or Assembly(self._max_received_bytes)
        return self._assembly

    def _begin(self, request: Request, number: int, frame: bytes | None) -> None:
        self.proven = True
        self._number = number
        self._assembly = None
        self._stop_last()
        if self._bell is not None:
            self._bell.quiet()
        self._pending = request
        request.on_late = self._on_late
        if self.ended:
            self._answer_pending()
        else:
            self._take(frame)

    def _take(self, frame: bytes | None) -> None:
        if frame is None:
            self._answer_pending()
            return
        self._held = frame
        self._admit_held()

    def _admit_held(self) -> None:
        # While the other direction is stuck, a few more are taken: a handler that sends before it reads
        # on would otherwise wait for an exchange that waits for it.
        limit = INBOX_FRAMES if self._sender is None else STUCK_INBOX_FRAMES
        if self._held is not None and len(self._inbox) < limit:
            self._inbox.append(self._held)
            self._held = None
            _wake(self._reader)
            assert self._pending is not None
            if self._sender is not None or self._pending.message.option(MORE) is not None:
                self._answer_pending()

    def _inject(self, frame: bytes) -> None:
        """Let the master read a frame that the device has not sent in so many words."""
        self._inbox.append(frame)
        _wake(self._reader)

    def _on_late(self, request: Request) -> None:
        if request is self._pending and self._held is None:
            self._answer_pending()

    def _replace_pending(self, request: Request) -> None:
        assert self._pending is not None
        self._pending.answered = True  # Its sender waits for the repetition now.
        self._pending = request
        request.on_late = self._on_late

    # --- answers ------------------------------------------------------------------------------

    def _answer_with(self, data: bytes) -> bool:
        """Answer with `data` or what waits before it; return whether `data` is gone."""
        assert self._pending is not None
        waiting = self._waiting
        if not self._fits(data if waiting is None else waiting):
            self._complete(None, more=True)
            return False
        if waiting is None:
            self._complete(data, more=False)
        else:
            # `data` takes its place, and the device asks for it at once.
            self._waiting = data
            self._complete(waiting, more=True)
        return True

    def _answer_pending(self) -> None:
        """Answer with what waits."""
        frame = self._waiting
        if frame is None:
            self._complete(None, more=False)
        elif not self._fits(frame):
            self._complete(None, more=True)
        else:
            self._waiting = None
            more = self._sender is not None or bool(self.ended)
            _wake(self._sender)
            self._complete(frame, more)

    def _stop_last(self) -> None:
        """The last answer need not be repeated: it has arrived, or is asked for again."""
        if self._repeated is not None:
            self._repeated.stop()
            self._repeated = None

    def _fits(self, frame: bytes) -> bool:
        """Return whether an opening may be answered with that much; exchanges answer in blocks."""
        request = self._pending
        assert request is not None
        if self._number != OPENING:
            return True
        overhead = 4 + 2 + 1 + len(self.name) + 1  # More, `e`, the name, the payload marker.
        room = request.payload_bytes if request.room is None else request.room - overhead
        return len(frame) <= min(room, request.payload_bytes)

    def _complete(self, frame: bytes | None, more: bool) -> None:
        request = self._pending
        assert request is not None
        self._pending = None
        self._answer = (frame, more)
        self._respond(request, frame, more)

    def _respond(
        self, request: Request, frame: bytes | None, more: bool, want: Block | None = None
    ) -> None:
        self._stop_last()
        self._say(request, frame, more, want)
        if request.repeating:
            self._repeated = request

    def _say(self, request: Request, frame: bytes | None, more: bool, want: Block | None) -> None:
        options: Options = [(MORE, b"")] if more else []
        if frame == b"":
            options.append((EMPTY_FRAME, b""))
        if self._number == OPENING:
            location: Options = [(LOCATION_PATH, b"e"), (LOCATION_PATH, self.name)]
            block1 = request.message.option(BLOCK1)
            if block1 is not None:
                location.append((BLOCK1, block1))
            request.respond(CREATED, location + options, frame or b"")
            return
        if self.ended and frame is None and not more:
            self._respond_ended(request)
            return
        prove = None if request.remote == self._remote else lambda: self._moved(request)
        respond_in_blocks(request, CHANGED, options, frame or b"", want or Block.of(request), prove)

    def _respond_ended(self, request: Request) -> None:
        reason, room = self.ended.encode()[: request.payload_bytes], request.room
        if room is not None and request.remote != self._remote:
            reason = reason[: max(0, room - 1)]
        request.respond(NOT_FOUND, [], reason)

    def _moved(self, request: Request) -> None:
        """The device is at another address now, and so is its bell."""
        self._remote = request.remote
        self.peer = request.peer
        if not self.ended:
            self._leave()
            self._leave = request.settle()
        if self._bell is not None:
            self._bell.move(request.remote)

    def refuse_too_large(self, request: Request) -> None:
        """A frame is longer than this side takes."""
        request.respond(TOO_LARGE, [(SIZE1, uint(self._max_received_bytes))])
        self.end(
            f"{self.peer} sent a message larger than the {self._max_received_bytes} bytes that this side "
            f"takes (transport.coap.max_message_bytes)",
            here=False,
        )

    def read_blob(self, request: Request, name: str, want: Block) -> None:
        """Answer with a block of a blob."""
        self.heard_at = self._loop.time()
        request.repeat_s = self.repeat_s
        if self.ended:
            self._respond_ended(request)
            return
        blobs = self._blobs = self._blobs or BlobReader(self._inject, self._windows)
        self._when_proven(request, lambda: blobs.read(request, name, want))

    def _when_proven(self, request: Request, answer: Callable[[], None]) -> None:
        """Answer now if the device has proven to be where the request came from, else when it has."""
        if request.remote == self._remote:
            answer()
            return

        def on_end(outcome: str) -> None:
            if outcome != TIMED_OUT and not self.ended:
                self._moved(request)
                request.answered = False
                answer()

        # One at a time, and none is acknowledged before its address is proven: whoever is there asks again
        # and is then asked again, so that it does not matter which datagram got lost. (libcoap 4.3.1 loses
        # pings itself: it answers none in the first quarter of the second in which it has started.)
        self._stop_proving()
        request.answered = True
        self._stop_proving = request.prove(on_end)

    # --- the bell -----------------------------------------------------------------------------

    def observe(self, request: Request) -> None:
        """Ring the request from now on when frames begin to wait, in place of any other one.

        Notifications are repeated, and nobody shall be able to turn them on somebody else: they go to
        proven addresses only.
        """
        request.repeat_s = self.repeat_s
        if self.ended:
            self.tell_waiting(request, deregister=False)
        else:
            self._when_proven(request, lambda: self._register(request))

    def _register(self, request: Request) -> None:
        if self._bell is not None:
            self._bell.quiet()
        self._bell = Bell(self, request)
        self.push = True
        request.respond(CONTENT, [(OBSERVE, uint(self.bell_count))], b"%d" % self._waiting_bytes)
        self._bell.rung = self._waiting is not None

    def tell_waiting(self, request: Request, *, deregister: bool) -> None:
        """Answer how much waits.

        Parameters:
            deregister: and ring no more, if it was this request's place and token that observed (RFC 7641,
                section 3.6).
        """
        if self.ended and self._waiting is None:
            self._respond_ended(request)
            return
        if deregister and self._bell is not None and self._bell.rings(request):
            self._bell.quiet()
            self.unhook(self._bell)
        request.respond(CONTENT, [], b"%d" % self._waiting_bytes)

    def unhook(self, bell: Bell) -> None:
        """The bell is not heard any more."""
        if self._bell is bell:
            self._bell = None
            self.push = False

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.ring(self._waiting_bytes)

    @property
    def _waiting_bytes(self) -> int:
        return max(1, len(self._waiting)) if self._waiting is not None else 0


class Bell:
    """Tells a device that something waits: an observation (RFC 7641) of its session."""

    def __init__(self, session: Session, request: Request) -> None:
        #: Whether the device has been told and has not come yet.
        self.rung = False
        self._session = session
        self._request = request
        self._stop = nothing

    def ring(self, waiting_bytes: int) -> None:
        """Notify, unless the device has been told already."""
        if not self.rung:
            self.rung = True
            self._session.bell_count = (self._session.bell_count + 1) & 0xFFFFFF
            options: Options = [(OBSERVE, uint(self._session.bell_count))]
            self._stop = self._request.notify(CONTENT, options, b"%d" % waiting_bytes, self._on_end)

    def quiet(self) -> None:
        """The device has come: it need not be told any more."""
        self.rung = False
        self._stop()
        self._stop = nothing

    def rings(self, request: Request) -> bool:
        """Return whether notifications go to that place with that token."""
        mine = self._request
        return (request.remote, request.message.token) == (mine.remote, mine.message.token)

    def move(self, remote: object) -> None:
        """Ring there from now on."""
        self._request.remote = remote

    def end(self, reason: str) -> None:
        """Say that the session is over (section 4.2: an error ends the observation)."""
        self.quiet()
        self._stop = self._request.notify(
            NOT_FOUND, [], reason.encode()[: self._request.payload_bytes], _ignore
        )

    def _on_end(self, outcome: str) -> None:
        # Section 4.5: whoever rejects notifications, or does not confirm them, has gone.
        if outcome != ACKNOWLEDGED:
            self._session.unhook(self)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _ignore(outcome: str) -> None:
    """Nothing follows from how it went."""
