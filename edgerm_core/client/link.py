"""One connection to the master, from the greeting to its end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from edgerm_core.client.mailbox import Mailbox
from edgerm_core.client.outbox import Outbox
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed, EdgermError, RefusedError, TransportError, VersionError
from edgerm_core.interfaces import Connection
from edgerm_core.limits import GREETING_TIMEOUT_S, MAX_MESSAGE_BYTES, REQUEST_TIMEOUT_S
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    AnyMessage,
    Greet,
    Greeted,
    Heartbeat,
    Message,
    Refused,
    Subscribe,
    Subscribed,
)

POLL_S = 1.0
"""On a connection where the master cannot push: ask this often what is waiting. A person notices a
second; a radio link that cannot bear it has no framework at its end."""

CLOSE_TIMEOUT_S = 2.0
"""For the last messages and the goodbye of a connection that may be dead."""


class Unanswered(TransportError):
    """The master did not answer a request in time.

    Attributes:
        silent: whether nothing at all came from it meanwhile, so that the connection is probably dead.
    """

    def __init__(self, message: str, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class Link:
    """One greeted connection. Requests and answers, other messages handed on.

    Attributes:
        max_message_bytes: the largest frame that may be sent.
        greeting: the master's answer to ours.
    """

    def __init__(
        self, connection: Connection, greeting: Subscribed | Greeted, handle: Callable[[AnyMessage], None]
    ) -> None:
        self.max_message_bytes = min(connection.max_message_bytes, MAX_MESSAGE_BYTES)
        self.greeting = greeting
        self._connection = connection
        self._handle = handle
        self._outbox = Outbox()
        self._mailboxes: dict[int, Mailbox] = {}
        self._request_ids = itertools.count(1)
        self._received_at = anyio.current_time()
        self._lost = anyio.Event()
        self._end: EdgermError | None = None

    async def run(self, early: list[AnyMessage]) -> EdgermError:
        """Carry messages both ways until the connection ends; return why.

        Parameters:
            early: what came in the same frame as the answer to the greeting.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._receive, early)
            group.start_soon(self._send)
            if not self._connection.push:
                group.start_soon(self._poll)
            await self._lost.wait()
            group.cancel_scope.cancel()
        assert self._end is not None
        return self._end

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""
        return self._end is not None

    def lose(self, end: EdgermError) -> None:
        """End the link because of `end`; everybody who waits for an answer learns it. Idempotent."""
        if self._end is not None:
            return
        self._end = end
        self._outbox.close(str(end))
        for mailbox in self._mailboxes.values():
            mailbox.lose(str(end))
        self._lost.set()

    async def flush(self) -> None:
        """Wait, briefly, until what was sent has left; also if the caller is cancelled."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._outbox.drained()

    async def close(self, reason: str) -> None:
        """End the connection; what was not flushed is dropped. Idempotent; never raises."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._connection.close(reason)
        self.lose(ConnectionClosed(reason))

    async def send(self, message: Message) -> None:
        """Send a message; waits while the connection is too slow.

        Raises:
            ConnectionClosed: if the link has ended.
            ValueError: if it is larger than `max_message_bytes`.
        """
        data = encode(message)
        if len(data) > self.max_message_bytes:
            raise ValueError(
                f"{type(message).__name__} of {len(data)} bytes exceeds the {self.max_message_bytes} "
                f"that {self._connection.peer} takes"
            )
        await self._outbox.put(data)

    def post(self, message: Message) -> None:
        """Send a small message without waiting; dropped if the link has ended."""
        self._outbox.post(encode(message))

    @contextmanager
    def mailbox(self, requests: int = 1) -> Iterator[tuple[Mailbox, list[int]]]:
        """Return a mailbox and the request ids whose answers go there until the block ends."""
        box = Mailbox()
        if self._end is not None:
            box.lose(str(self._end))
        ids = [next(self._request_ids) for _ in range(requests)]
        self._mailboxes.update(dict.fromkeys(ids, box))
        try:
            yield box, ids
        finally:
            for request_id in ids:
                del self._mailboxes[request_id]

    async def answer(self, box: Mailbox, what: str) -> AnyMessage:
        """Return the next answer.

        Raises:
            ConnectionClosed: if the link ends first.
            Unanswered: if none comes within `REQUEST_TIMEOUT_S`.
        """
        asked_at = anyio.current_time()
        with anyio.move_on_after(REQUEST_TIMEOUT_S):
            found = await box.get()
            assert found is not None, "only logs overflow a mailbox"
            return found
        raise Unanswered(
            f"the master at {self._connection.peer} did not answer {what} within {REQUEST_TIMEOUT_S:g} s; "
            f"see its log",
            silent=self._received_at <= asked_at,
        )

    async def ask(self, make: Callable[[int], Message]) -> AnyMessage:
        """Send the request that `make` builds around its id; return the answer.

        Raises:
            ConnectionClosed, Unanswered, ValueError: as `send` and `answer`.
        """
        with self.mailbox() as (box, [request_id]):
            message = make(request_id)
            await self.send(message)
            return await self.answer(box, type(message).__name__)

    async def _receive(self, early: list[AnyMessage]) -> None:
        try:
            messages = early
            while True:
                for message in messages:
                    self._dispatch(message)
                messages = decode_batch(await self._connection.receive())
                self._received_at = anyio.current_time()
        except EdgermError as error:
            self.lose(error)

    def _dispatch(self, message: AnyMessage) -> None:
        if isinstance(message, Refused):
            raise RefusedError(message.code, message.message)
        request_id: int | None = getattr(message, "request_id", None)
        if request_id is None:
            self._handle(message)
        elif (mailbox := self._mailboxes.get(request_id)) is not None:
            mailbox.put(message)
        # Else whoever asked has stopped waiting.

    async def _send(self) -> None:
        try:
            while True:
                await self._connection.send(await self._outbox.take(self.max_message_bytes))
        except EdgermError as error:
            # The other side may have said why it hung up; the receiver finds that. It must not take long.
            with anyio.move_on_after(CLOSE_TIMEOUT_S):
                await self._lost.wait()
            self.lose(error)

    async def _poll(self) -> None:
        while True:
            await anyio.sleep(POLL_S)
            self.post(Heartbeat())


async def greet(
    connection: Connection, greeting: Subscribe | Greet
) -> tuple[Subscribed | Greeted, list[AnyMessage]]:
    """Say who we are; return the master's answer and what else came with it.

    Raises:
        RefusedError: if the master refuses us.
        VersionError: if it answers with a protocol version this code does not speak.
        TransportError: if it does not answer within `GREETING_TIMEOUT_S`, or hangs up.
        DecodeError: if the answer is not a message.
    """
    await connection.send(encode(greeting))
    with anyio.move_on_after(GREETING_TIMEOUT_S):
        first, *rest = decode_batch(await connection.receive())
        if isinstance(first, Refused):
            raise RefusedError(first.code, first.message)
        if not isinstance(first, Subscribed | Greeted):
            raise TransportError(f"{connection.peer} answered the greeting with {type(first).__name__}")
        if not OLDEST_PROTOCOL_VERSION <= first.version <= PROTOCOL_VERSION:
            raise VersionError(
                f"{connection.peer} speaks protocol version {first.version}, this client "
                f"{OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}: install matching versions of edgerm-core"
            )
        return first, rest
    raise TransportError(f"{connection.peer} did not answer the greeting within {GREETING_TIMEOUT_S:g} s")
