"""The dialing side of a connection: counts exchanges, and finds a reason for the next one.

One coroutine carries one exchange after the other. Reasons are, in this order: something to send, an
answer that said that more waits, the bell, an answer that was still missing, the NAT to be kept open.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import Final

import anyio

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection
from edgerm_transport_coap.carrier import Carrier, CarrierLost
from edgerm_transport_coap.config import (
    ASK_AGAIN_S,
    CLOSE_TIMEOUT_S,
    DEFAULT_BLOCK_BYTES,
    INBOX_FRAMES,
    NON_FRAME_BYTES,
    REASON_BYTES,
    RETRY_LATER_S,
    CoapConfig,
)
from edgerm_transport_coap.message import (
    BLOCK1,
    BLOCK2,
    CHANGED,
    CONFLICT,
    CONTENT,
    CONTINUE,
    DELETE,
    EMPTY_FRAME,
    INCOMPLETE,
    MAX_AGE,
    MORE,
    NOT_FOUND,
    OBSERVE,
    POST,
    SIZE1,
    TOO_LARGE,
    UNAVAILABLE,
    URI_PATH,
    URI_QUERY,
    Malformed,
    Message,
    Options,
    block,
    block_exponent,
    code_name,
    parse_block,
    parse_uint,
)

log = logging.getLogger(__name__)

MAX_RESTARTS: Final = 8
"""Of a transfer in blocks that the master lost track of."""


class _Ended(Exception):
    """The session is over; the text is a sentence."""


class CoapConnection(Connection):
    """A session with a master. Made by `connector.connect`.

    Parameters:
        carrier: closed with the connection.
        peer: the master's URL.
        name: of the session.
        first: the frame that came with the answer to the opening, and whether more waits.
    """

    identity = None

    def __init__(
        self, carrier: Carrier, peer: str, name: bytes, first: tuple[bytes | None, bool], config: CoapConfig
    ) -> None:
        self.peer = peer
        self.local = carrier.local
        self.push = config.observe
        self.max_message_bytes = config.max_message_bytes
        self._carrier = carrier
        self._config = config
        self._path: Options = [(URI_PATH, b"e"), (URI_PATH, name)]
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._inbox: collections.deque[bytes] = collections.deque()
        frame, self._ask = first
        if frame is not None:
            self._inbox.append(frame)
        self._outbox: bytes | None = None
        self._ended = ""
        self._closed_here = False
        #: Whether the master rings; and whether it should be asked to (again).
        self._bell = False
        self._observe = config.observe
        self._moves = carrier.moves
        self._exchanged_at = self._loop.time()
        #: Empty answers in a row to the last frame, and when to ask again for it.
        self._unanswered = 0
        self._ask_at: float | None = None
        self._reader: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        # A task of its own, because a connection has no task group to live in.
        self._running = asyncio.create_task(self._run())

    # --- the user's side ----------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """See `Connection.send`."""
        if len(data) > self.max_message_bytes:
            raise ValueError(
                f"a message of {len(data)} bytes is too large for {self.peer}: "
                f"transport.coap.max_message_bytes is {self.max_message_bytes}"
            )
        while not self._ended and self._outbox is not None:
            self._sender = self._loop.create_future()
            try:
                await self._sender
            finally:
                self._sender = None
        if self._ended:
            raise ConnectionClosed(self._ended)
        self._outbox = data
        self._flushed.clear()
        self._wake.set()

    async def receive(self) -> bytes:
        """See `Connection.receive`."""
        while not self._inbox or self._closed_here:
            if self._ended:
                raise ConnectionClosed(self._ended)
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._wake.set()
        return self._inbox.popleft()

    async def close(self, reason: str = "") -> None:
        """See `Connection.close`. Takes at most twice CLOSE_TIMEOUT_S."""
        if self._closed_here:
            return
        self._closed_here = True
        text = f"this side closed the connection to {self.peer}{f': {reason}' if reason else ''}"
        with anyio.CancelScope(shield=True):
            if not self._ended:
                _wake(self._reader)
                await self._say_goodbye(text, reason)
            self._end(text)
            self._running.cancel()
            await self._carrier.close()

    async def _say_goodbye(self, text: str, reason: str) -> None:
        with anyio.move_on_after(CLOSE_TIMEOUT_S):
            await self._flushed.wait()
        ended_before = bool(self._ended)
        self._end(text)
        if ended_before:
            return
        self._running.cancel()
        with anyio.move_on_after(CLOSE_TIMEOUT_S / 2):
            try:
                await self._carrier.request(DELETE, self._path, reason.encode()[:REASON_BYTES])
            except CarrierLost:
                pass

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = reason
            self._flushed.set()
            _wake(self._reader)
            _wake(self._sender)

    # --- exchanges ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                await self._reason_to_speak()
                if self._observe and self._outbox is None:
                    await self._register()
                else:
                    await self._exchange()
        except _Ended as error:
            self._end(str(error))
        except CarrierLost as error:
            self._end(f"{self.peer} {error}")
        except Malformed as error:
            self._end(f"{self.peer} answered with something that makes no sense: {error}")
        except Exception as error:
            log.exception("the connection to %s failed; please report this", self.peer)
            self._end(f"{self.peer}: {type(error).__name__}: {error}")

    async def _reason_to_speak(self) -> None:
        while True:
            self._wake.clear()
            if self._moves != self._carrier.moves:
                # From another port: a NAT may have forgotten the way back to the old one.
                self._moves = self._carrier.moves
                self._observe = self._config.observe
            now = self._loop.time()
            until: float | None = None
            if len(self._inbox) < INBOX_FRAMES:
                if self._outbox is not None or self._ask or self._observe:
                    return
                until = self._ask_at
                if self._bell and self._config.keepalive_s:
                    keep_at = self._exchanged_at + self._config.keepalive_s
                    until = keep_at if until is None else min(until, keep_at)
                if until is not None and until <= now:
                    return
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _register(self) -> None:
        """Ask the master to ring."""
        self._observe = False
        self._moves = self._carrier.moves
        answer = await self._carrier.observe(self._path, self._on_note)
        self._check(answer, CONTENT)
        self._bell = answer.option(OBSERVE) is not None
        self._on_waiting(answer)

    def _on_note(self, note: Message) -> None:
        if note.code == CONTENT:
            self._on_waiting(note)
        else:
            self._bell = False
            self._ask = True  # The answer says what is wrong, if anything is.
        self._wake.set()

    def _on_waiting(self, message: Message) -> None:
        if message.payload.strip(b"0"):
            self._ask = True

    async def _exchange(self) -> None:
        expected = self._ask or self._ask_at is not None
        frame, self._outbox = self._outbox, None
        self._ask, self._ask_at = False, None
        self._number += 1
        more_to_say = self._sender is not None
        _wake(self._sender)
        answer, more = await self._carry(frame, more_to_say)
        self._exchanged_at = self._loop.time()
        self._ask = more or self._ask
        if self._outbox is None:
            self._flushed.set()
        if answer is not None:
            self._inbox.append(answer)
            _wake(self._reader)
        if answer is not None or more:
            self._unanswered = 0
            if frame is None and not expected:
                self._observe = self._config.observe  # No bell announced it: it is not heard any more.
            return
        if frame is not None:
            self._unanswered = 1
        elif self._unanswered:
            self._unanswered += 1
        if not self._bell and 1 <= self._unanswered <= len(ASK_AGAIN_S):
            self._ask_at = self._exchanged_at + ASK_AGAIN_S[self._unanswered - 1]

    async def _carry(self, frame: bytes | None, more_to_say: bool) -> tuple[bytes | None, bool]:
        """Carry out one exchange; return the answer's frame, and whether more waits."""
        options: Options = [*self._path, (URI_QUERY, b"%d" % self._number)]
        extra: Options = [(MORE, b"")] if more_to_say else []
        if frame == b"":
            extra.append((EMPTY_FRAME, b""))
        if self._carrier.payload_bytes < DEFAULT_BLOCK_BYTES:
            # RFC 7959, section 2.4: ask for small blocks from the first one on.
            extra.insert(0, (BLOCK2, block(0, False, block_exponent(self._block_bytes))))
        for _ in range(MAX_RESTARTS):
            answer = await self._send_frame(options + extra, frame or b"")
            if answer.code == UNAVAILABLE:
                await asyncio.sleep(parse_uint(answer.option(MAX_AGE) or bytes((RETRY_LATER_S,))))
            elif answer.code != INCOMPLETE:
                break
        self._check(answer, CHANGED)
        return await self._whole(options, answer), answer.option(MORE) is not None

    @property
    def _block_bytes(self) -> int:
        """Of a frame that does not fit into one message."""
        return min(self._config.block_bytes, 16 << block_exponent(self._carrier.payload_bytes))

    async def _send_frame(self, options: Options, frame: bytes) -> Message:
        """Send a frame, in blocks if it is long; return the answer to its last part."""
        if len(frame) <= self._carrier.payload_bytes:
            return await self._carrier.request(
                POST, options, frame, confirmable=len(frame) > NON_FRAME_BYTES
            )
        size = self._block_bytes
        exponent = block_exponent(size)
        for offset in range(0, len(frame), size):
            more = offset + size < len(frame)
            value = block(offset >> exponent + 4, more, exponent)
            answer = await self._carrier.request(
                POST, _with(options, BLOCK1, value), frame[offset : offset + size]
            )
            if not more or answer.code != CONTINUE:
                return answer
        raise AssertionError("a frame has a last block")

    async def _whole(self, options: Options, answer: Message) -> bytes | None:
        """Return the answer's frame, fetching what did not fit into one message (RFC 7959)."""
        payload = answer.payload
        option = answer.option(BLOCK2)
        if option is None:
            self._check_size(len(payload))
            return answer.frame
        while option is not None:
            number, more, exponent = parse_block(option)
            if not more:
                break
            self._check_size(len(payload))
            if not answer.payload or number << exponent + 4 != len(payload) - len(answer.payload):
                raise Malformed("blocks out of order")
            next_block = block(len(payload) >> exponent + 4, False, exponent)
            answer = await self._carrier.request(POST, _with(options, BLOCK2, next_block))
            self._check(answer, CHANGED)
            option = answer.option(BLOCK2)
            payload += answer.payload
        self._check_size(len(payload))
        return payload

    def _check_size(self, size: int) -> None:
        if size <= self.max_message_bytes:
            return
        raise _Ended(
            f"{self.peer} sent a message larger than the {self.max_message_bytes} bytes that this side "
            f"takes (transport.coap.max_message_bytes)"
        )

    def _check(self, answer: Message, expected: int) -> None:
        """Raise _Ended if the answer is another one than expected."""
        if answer.code == expected:
            return
        words = answer.payload[:REASON_BYTES].decode(errors="replace")
        words = "".join(c if c.isprintable() else "?" for c in words)
        if answer.code == NOT_FOUND:
            raise _Ended(f"{self.peer} has no such session any more{f': {words}' if words else ''}")
        if answer.code == TOO_LARGE:
            limit = parse_uint(answer.option(SIZE1) or b"")
            raise _Ended(
                f"{self.peer} closed the session: a message was larger than the {limit} bytes it takes"
            )
        if answer.code == CONFLICT:
            raise _Ended(f"{self.peer} counts exchanges in another way: two sides used one session")
        raise _Ended(
            f"{self.peer} answered {code_name(answer.code)}{f': {words}' if words else ''}; "
            f"is it an edgerm master?"
        )


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _with(options: Options, number: int, value: bytes) -> Options:
    """Return the options with another one in its place."""
    return sorted([*options, (number, value)], key=lambda option: option[0])
