"""Transports with bugs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.errors import ConfigError, TransportError
from edgerm_core.interfaces import Connection, Listener, Transport
from edgerm_core.testing.contracts import transport as kit
from edgerm_core.testing.contracts.transport import SMALL_MESSAGE_BYTES, TransportContract


class Around(Connection):
    """A sound connection, to do something wrong with."""

    def __init__(self, inner: Connection) -> None:
        self.inner = inner
        self.peer, self.max_message_bytes, self.push = inner.peer, inner.max_message_bytes, inner.push
        self.identity, self.local = inner.identity, inner.local

    async def send(self, data: bytes) -> None:
        await self.inner.send(data)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def close(self, reason: str = "") -> None:
        await self.inner.close(reason)


class AroundListener(Listener):
    """A sound listener that hands out what the transport makes of its connections."""

    def __init__(self, inner: Listener, ends: type[Around]) -> None:
        self.inner, self.url, self.ends = inner, inner.url, ends

    async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
        await self.inner.serve(lambda connection: handler(self.ends(connection)))

    async def close(self) -> None:
        await self.inner.close()


class AroundTransport(Transport):
    schemes = MemoryTransport.schemes
    ends: type[Around] = Around
    listener: type[AroundListener] = AroundListener

    def __init__(self, **limits: int) -> None:
        self.inner = MemoryTransport(**limits)

    async def listen(self, url: str) -> Listener:
        return self.listener(await self.inner.listen(url), self.ends)

    async def connect(self, url: str) -> Connection:
        return self.ends(await self.inner.connect(url))


class Sound(TransportContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    bug: ClassVar[type[AroundTransport]]
    patience_s: ClassVar[float] = kit.PATIENCE_S
    """Short only where something never comes: what does come may take its time."""

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kit, "PATIENCE_S", type(self).patience_s)

    @pytest.fixture
    def transport(self) -> Transport:
        return type(self).bug()

    @pytest.fixture
    def small_transport(self) -> Transport:
        return type(self).bug(max_message_bytes=SMALL_MESSAGE_BYTES)

    @pytest.fixture
    def listen_url(self) -> str:
        return f"memory://{type(self).__name__.lower()}"


class TestSound(Sound):
    bug = AroundTransport


class TestSwapsMessages(Sound):
    class bug(AroundTransport):
        class ends(Around):
            swapped: bytes | None = None

            async def send(self, data: bytes) -> None:
                if self.swapped is None and len(data) % 5 == 1:
                    self.swapped = data
                    return
                await self.inner.send(data)
                if self.swapped is not None:
                    last, self.swapped = self.swapped, None
                    await self.inner.send(last)

    caught_by = "test_messages_arrive_whole_and_in_order_both_ways"


class TestOvertakesWhatWasSentWithoutWaiting(Sound):
    class bug(AroundTransport):
        class ends(Around):
            kept: bytes | None = None

            def send_nowait(self, data: bytes) -> bool:
                kept, self.kept = self.kept, data
                return kept is None

            async def send(self, data: bytes) -> None:
                await self.inner.send(data)
                if self.kept is not None:
                    await self.inner.send(self.kept)
                self.kept = None

    caught_by = "test_what_is_sent_without_waiting_arrives_in_order_with_the_rest"


class TestKeepsEverythingRatherThanWait(Sound):
    class bug(AroundTransport):
        class ends(Around):
            def __init__(self, inner: Connection) -> None:
                super().__init__(inner)
                self.kept: list[bytes] = []

            def send_nowait(self, data: bytes) -> bool:
                self.kept.append(data)
                return True

    caught_by = "test_no_more_is_sent_without_waiting_than_one_side_can_keep"


class TestSendsToNobody(Sound):
    class bug(AroundTransport):
        class ends(Around):
            closed = False

            def send_nowait(self, data: bytes) -> bool:
                return self.closed

            async def close(self, reason: str = "") -> None:
                self.closed = True
                await self.inner.close(reason)

    caught_by = "test_closing_ends_both_sides_while_they_wait_and_the_reason_arrives"
    says = "sent to nobody"


class TestReceivesSomethingElseThanBytes(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def receive(self) -> Any:
                return bytearray(await self.inner.receive())

    caught_by = "test_messages_arrive_whole_and_in_order_both_ways"


class TestDropsEmptyMessages(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def send(self, data: bytes) -> None:
                if data:
                    await self.inner.send(data)

    caught_by = "test_an_empty_message_arrives_as_an_empty_message"


class TestLosesWhatACancelledReceiveHad(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def receive(self) -> bytes:
                data = await self.inner.receive()
                await anyio.sleep(0.0005)
                return data

    patience_s = 2.0
    caught_by = "test_a_cancelled_receive_loses_nothing"


class TestTakesWhatever(Sound):
    """Keeps what waits, without a bound."""

    class bug(AroundTransport):
        class ends(Around):
            def __init__(self, inner: Connection) -> None:
                super().__init__(inner)
                self.backlog: list[bytes] = []

            async def send(self, data: bytes) -> None:
                self.backlog.append(data)
                with anyio.move_on_after(0):
                    await self.inner.send(self.backlog[0])
                    del self.backlog[0]

    caught_by = "test_a_receiver_that_does_not_read_makes_send_wait"
    says = "send never waited for the receiver"


class TestCutsWhatIsTooLarge(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def send(self, data: bytes) -> None:
                await self.inner.send(data[: self.max_message_bytes])

    caught_by = "test_send_refuses_what_is_over_the_limit_and_harms_nothing"
    says = "DID NOT RAISE"


class TestKeepsTheReasonToItself(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def close(self, reason: str = "") -> None:
                await self.inner.close()

    caught_by = "test_closing_ends_both_sides_while_they_wait_and_the_reason_arrives"
    says = "enough for today"


class TestClosesOnce(Sound):
    class bug(AroundTransport):
        class ends(Around):
            closed = False

            async def close(self, reason: str = "") -> None:
                if self.closed:
                    raise RuntimeError("closed twice")
                self.closed = True
                await self.inner.close(reason)

    caught_by = "test_closing_is_idempotent_and_never_raises"
    says = "closed twice"


class TestClosesOnlyWithTime(Sound):
    class bug(AroundTransport):
        class ends(Around):
            async def close(self, reason: str = "") -> None:
                await anyio.lowlevel.checkpoint()
                await self.inner.close(reason)

    patience_s = 2.0
    caught_by = "test_closing_in_a_cancelled_scope_still_ends_the_connection"


class TestSaysThatEverybodyIsRemote(Sound):
    class bug(AroundTransport):
        class ends(Around):
            def __init__(self, inner: Connection) -> None:
                super().__init__(inner)
                self.local = False

    caught_by = "test_both_ends_say_what_they_are"
    says = "local"


class TestServesOneAfterTheOther(Sound):
    class bug(AroundTransport):
        class listener(AroundListener):
            async def serve(self, handler: Callable[[Connection], Awaitable[None]]) -> None:
                lock = anyio.Lock()

                async def one(connection: Connection) -> None:
                    async with lock:
                        await handler(connection)

                await self.inner.serve(one)

    patience_s = 2.0
    caught_by = "test_many_connections_are_served_at_once_and_kept_apart"


class TestKeepsTheAddress(Sound):
    class bug(AroundTransport):
        class listener(AroundListener):
            async def close(self) -> None:
                pass

    caught_by = "test_dialing_nobody_is_a_transport_error_that_names_the_url"
    says = "DID NOT RAISE"


class TestFailsAsTheSystemDoes(Sound):
    class bug(AroundTransport):
        async def connect(self, url: str) -> Connection:
            try:
                return await super().connect(url)
            except TransportError as error:
                raise ConnectionRefusedError(111, "Connection refused") from error

    caught_by = "test_dialing_nobody_is_a_transport_error_that_names_the_url"
    says = "Connection refused"


class TestSaysNotWhereNobodyIs(Sound):
    class bug(AroundTransport):
        async def connect(self, url: str) -> Connection:
            try:
                return await super().connect(url)
            except TransportError as error:
                raise TransportError("connection refused") from error

    caught_by = "test_dialing_nobody_is_a_transport_error_that_names_the_url"


class TestTakesAnyUrl(Sound):
    class bug(AroundTransport):
        async def connect(self, url: str) -> Connection:
            try:
                return await super().connect(url)
            except ConfigError as error:
                raise TransportError(f"{url}: nobody there") from error

    caught_by = "test_urls_that_make_no_sense_are_config_errors"
