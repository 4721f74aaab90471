"""The contract of transports: a suite to run over yours.

    from edgerm_core.testing.contracts.transport import SMALL_MESSAGE_BYTES, TransportContract

    class TestMyTransport(TransportContract):
        @pytest.fixture
        def transport(self) -> Transport:
            return MyTransport()

        @pytest.fixture
        def small_transport(self) -> Transport:
            return MyTransport(max_message_bytes=SMALL_MESSAGE_BYTES)

        @pytest.fixture
        def listen_url(self) -> str:
            return "mine://127.0.0.1:0"

Each test is one sentence of the docstrings of `Transport`, `Listener` and `Connection`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.lowlevel
import pytest

from edgerm_core.errors import ConfigError, ConnectionClosed, TransportError
from edgerm_core.interfaces import Connection, Listener, Transport
from edgerm_core.security import is_loopback
from edgerm_core.testing.contracts.asynchronous import AsyncContract

SMALL_MESSAGE_BYTES: Final = 4096
"""What `small_transport` takes at most."""

PATIENCE_S: Final = 40.0
"""No single wait of the suite is longer."""

FLOOD_MESSAGES: Final = 512
FLOOD_MESSAGE_BYTES: Final = 64 << 10
"""32 MiB altogether: more than any sane transport and its kernel keep on the way for one connection."""

STALLED_S: Final = 0.3
"""A sender that has not got on for this long is taken to wait."""

LOOKS: Final = 10
"""So often it is looked at meanwhile: a pause of the machine, in which nobody gets on, is one look."""


async def echo(connection: Connection) -> None:
    """Send back whatever comes, until the peer has gone."""
    try:
        while True:
            await connection.send(await connection.receive())
    except ConnectionClosed:
        pass


@asynccontextmanager
async def serving_pair(
    transport: Transport, dialer: Transport, url: str
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Yield (the dialing end, the listening end) of one connection; both are closed afterwards."""
    listener = await transport.listen(url)
    accepted, arrivals = anyio.create_memory_object_stream[Connection](1)

    async def hold(connection: Connection) -> None:
        await accepted.send(connection)
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, hold)
        try:
            with anyio.fail_after(PATIENCE_S):
                dialing = await dialer.connect(listener.url)
                listening = await arrivals.receive()
            yield dialing, listening
            await dialing.close()
        finally:
            accepted.close()
            arrivals.close()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await listener.close()


class TransportContract(AsyncContract):
    """Subclass it in a test module, as `Test…`, and override the fixtures."""

    # --- fixtures to override -----------------------------------------------------------------

    @pytest.fixture
    def transport(self) -> Transport:
        """The transport under test; listens, and dials unless `dialer` says otherwise."""
        raise NotImplementedError("override the fixture `transport`")

    @pytest.fixture
    def small_transport(self) -> Transport:
        """The same, but it takes messages of at most SMALL_MESSAGE_BYTES."""
        raise NotImplementedError("override the fixture `small_transport`")

    @pytest.fixture
    def listen_url(self) -> str:
        """A URL on this machine that is free, best with a port that the system chooses."""
        raise NotImplementedError("override the fixture `listen_url`")

    @pytest.fixture
    def dialer(self, transport: Transport) -> Transport:
        """The dialing side, where it needs a configuration of its own."""
        return transport

    @pytest.fixture
    def small_dialer(self, small_transport: Transport) -> Transport:
        """The dialing side with the small limit, where it needs a configuration of its own."""
        return small_transport

    @pytest.fixture
    def bad_urls(self, transport: Transport) -> list[str]:
        """URLs of the transport's schemes that make no sense."""
        return [f"{scheme}://" for scheme in sorted(transport.schemes)]

    # --- what a connection says about itself --------------------------------------------------

    async def test_both_ends_say_what_they_are(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as ends:
            for end in ends:
                assert isinstance(end.peer, str)
                assert end.peer
                assert end.max_message_bytes > 0
                assert isinstance(end.push, bool)
                assert end.identity is None or (isinstance(end.identity, str) and end.identity)
                assert end.local is is_loopback(listen_url), "core judges by the host of the URL"

    async def test_schemes_are_those_of_the_urls(self, transport: Transport, listen_url: str) -> None:
        assert listen_url.partition("://")[0] in transport.schemes

    # --- messages -----------------------------------------------------------------------------

    async def test_messages_arrive_whole_and_in_order_both_ways(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        messages = [bytes([n % 256]) * (n * 37 % 1500) for n in range(300)]
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            for source, sink in ((dialing, listening), (listening, dialing)):
                got: list[bytes] = []
                with anyio.fail_after(PATIENCE_S):
                    async with anyio.create_task_group() as group:
                        group.start_soon(_send_all, source, messages)
                        while len(got) < len(messages):
                            got.append(await sink.receive())
                assert got == messages
                assert all(type(message) is bytes for message in got)

    async def test_what_is_sent_without_waiting_arrives_in_order_with_the_rest(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        messages = [bytes([n % 256]) * (n * 37 % 1500) for n in range(300)]
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            for source, sink in ((dialing, listening), (listening, dialing)):
                with anyio.fail_after(PATIENCE_S):
                    async with anyio.create_task_group() as group:
                        group.start_soon(_send_all_without_waiting, source, messages)
                        await _expect_all(sink, messages)

    async def test_both_directions_at_once(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        messages = [n.to_bytes(4, "big") * 500 for n in range(200)]
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    for source, sink in ((dialing, listening), (listening, dialing)):
                        group.start_soon(_send_all, source, messages)
                        group.start_soon(_expect_all, sink, messages)

    async def test_an_empty_message_arrives_as_an_empty_message(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.fail_after(PATIENCE_S):
                await dialing.send(b"")
                await dialing.send(b"after")
                assert await listening.receive() == b""
                assert await listening.receive() == b"after"

    async def test_a_message_of_exactly_the_limit_arrives_both_ways(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            for source, sink in ((dialing, listening), (listening, dialing)):
                data = random.Random(1).randbytes(source.max_message_bytes)  # Cannot be compressed.
                with anyio.fail_after(PATIENCE_S):
                    async with anyio.create_task_group() as group:
                        group.start_soon(source.send, data)
                        assert await sink.receive() == data

    async def test_send_refuses_what_is_over_the_limit_and_harms_nothing(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            for source, sink in ((dialing, listening), (listening, dialing)):
                with anyio.fail_after(PATIENCE_S):
                    with pytest.raises(ValueError, match=str(source.max_message_bytes)):
                        await source.send(bytes(source.max_message_bytes + 1))
                    await source.send(b"still fine")
                    assert await sink.receive() == b"still fine"

    @pytest.mark.parametrize("small_side", ["listening", "dialing"])
    async def test_a_message_over_the_receivers_limit_ends_the_connection_and_says_so(
        self,
        transport: Transport,
        dialer: Transport,
        small_transport: Transport,
        small_dialer: Transport,
        listen_url: str,
        small_side: str,
    ) -> None:
        if small_side == "listening":
            pair = serving_pair(small_transport, dialer, listen_url)
        else:
            pair = serving_pair(transport, small_dialer, listen_url)
        async with pair as (dialing, listening):
            source, sink = (dialing, listening) if small_side == "listening" else (listening, dialing)
            assert sink.max_message_bytes == SMALL_MESSAGE_BYTES
            with anyio.fail_after(PATIENCE_S):
                await source.send(bytes(SMALL_MESSAGE_BYTES))
                assert len(await sink.receive()) == SMALL_MESSAGE_BYTES
                if source.max_message_bytes <= SMALL_MESSAGE_BYTES:
                    # The peer has told its limit: such a message does not even leave.
                    with pytest.raises(ValueError, match=str(SMALL_MESSAGE_BYTES)):
                        await source.send(bytes(SMALL_MESSAGE_BYTES + 1))
                    return
                await source.send(bytes(SMALL_MESSAGE_BYTES + 1))
                with pytest.raises(ConnectionClosed, match=str(SMALL_MESSAGE_BYTES)):
                    await sink.receive()
                with pytest.raises(ConnectionClosed, match="larg"):
                    await source.receive()

    async def test_a_receiver_that_does_not_read_makes_send_wait(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            for source, sink in ((dialing, listening), (listening, dialing)):
                size = min(FLOOD_MESSAGE_BYTES, source.max_message_bytes)
                flood = _Flood(source, size)
                with anyio.fail_after(PATIENCE_S):
                    async with anyio.create_task_group() as group:
                        group.start_soon(flood.run)
                        await flood.stalled()
                        assert flood.sent < FLOOD_MESSAGES, "send never waited for the receiver"
                        for number in range(FLOOD_MESSAGES):
                            assert await sink.receive() == flood.message(number)
                assert flood.sent == FLOOD_MESSAGES

    async def test_no_more_is_sent_without_waiting_than_one_side_can_keep(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as ends:
            for source in ends:
                data = bytes(min(FLOOD_MESSAGE_BYTES, source.max_message_bytes))
                sent = 0
                while sent < FLOOD_MESSAGES and source.send_nowait(data):
                    sent += 1
                assert sent < FLOOD_MESSAGES, "send_nowait kept all that the receiver did not take"

    async def test_a_cancelled_send_leaves_whole_messages_or_a_closed_connection(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            flood = _Flood(dialing, min(FLOOD_MESSAGE_BYTES, dialing.max_message_bytes))
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(flood.run)
                    await flood.stalled()
                    group.cancel_scope.cancel()
                async with anyio.create_task_group() as group:
                    group.start_soon(_send_if_open, dialing, b"still open")
                    received = 0
                    try:
                        while (data := await listening.receive()) != b"still open":
                            assert data == flood.message(received)
                            received += 1
                        assert received >= flood.sent
                    except ConnectionClosed:
                        with pytest.raises(ConnectionClosed):
                            await dialing.send(b"closed on both sides")

    async def test_a_cancelled_receive_loses_nothing(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        messages = [n.to_bytes(4, "big") for n in range(200)]
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            got: list[bytes] = []

            async def send_with_pauses() -> None:
                for number, message in enumerate(messages):
                    await dialing.send(message)
                    if number % 5 == 0:
                        await anyio.sleep(0.001)

            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(send_with_pauses)
                    attempt = 0
                    while len(got) < len(messages):
                        attempt += 1
                        with anyio.move_on_after((attempt % 7) * 0.0002):
                            got.append(await listening.receive())
                        await anyio.lowlevel.checkpoint()
            assert got == messages

    # --- the end of a connection --------------------------------------------------------------

    @pytest.mark.parametrize("closer", ["listening", "dialing"])
    async def test_closing_ends_both_sides_while_they_wait_and_the_reason_arrives(
        self, transport: Transport, dialer: Transport, listen_url: str, closer: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            source, sink = (dialing, listening) if closer == "dialing" else (listening, dialing)
            sentences: dict[str, str] = {}

            async def wait_for_the_end(name: str, end: Connection) -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    await end.receive()
                sentences[name] = str(caught.value)

            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(wait_for_the_end, "here", source)
                    group.start_soon(wait_for_the_end, "there", sink)
                    await anyio.wait_all_tasks_blocked()
                    await source.close("enough for today")
                for end in (source, sink):
                    with suppress(ConnectionClosed):
                        assert not end.send_nowait(b"too late"), "sent to nobody"
                    with pytest.raises(ConnectionClosed):
                        await end.send(b"too late")
                    with pytest.raises(ConnectionClosed):
                        await end.receive()
            assert "enough for today" in sentences["there"]
            assert sentences["here"]

    @pytest.mark.parametrize("closer", ["sender", "receiver"])
    async def test_closing_ends_a_send_that_waits(
        self, transport: Transport, dialer: Transport, listen_url: str, closer: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            flood = _Flood(dialing, min(FLOOD_MESSAGE_BYTES, dialing.max_message_bytes))
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:

                    async def expect_the_end() -> None:
                        with pytest.raises(ConnectionClosed):
                            await flood.run()

                    group.start_soon(expect_the_end)
                    await flood.stalled()
                    assert flood.sent < FLOOD_MESSAGES
                    await (dialing if closer == "sender" else listening).close("no more")

    async def test_what_was_sent_before_an_orderly_close_arrives(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        """The master's last word, such as why it refuses a peer, comes right before the end."""
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    await listening.send(b"go away")
                    group.start_soon(listening.close, "refused")
                    assert await dialing.receive() == b"go away"
                    with pytest.raises(ConnectionClosed, match="refused"):
                        await dialing.receive()

    async def test_after_closing_here_nothing_more_is_received(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.fail_after(PATIENCE_S):
                await dialing.send(b"one")
                await dialing.send(b"two")
                assert await listening.receive() == b"one"
                await listening.close()
                with pytest.raises(ConnectionClosed):
                    await listening.receive()

    async def test_closing_is_idempotent_and_never_raises(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(dialing.close, "first")
                    group.start_soon(dialing.close, "second")
                    group.start_soon(listening.close, "at the same time")
                await dialing.close()
                await listening.close("x" * 10_000)

    async def test_closing_in_a_cancelled_scope_still_ends_the_connection(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with serving_pair(transport, dialer, listen_url) as (dialing, listening):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await dialing.close("cancelled")
            with anyio.fail_after(PATIENCE_S), pytest.raises(ConnectionClosed):
                await listening.receive()

    # --- listeners ----------------------------------------------------------------------------

    async def test_peers_wait_until_serve_runs(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)
        answers: list[bytes] = []

        async def ask() -> None:
            connection = await dialer.connect(listener.url)
            await connection.send(b"anybody there?")
            answers.append(await connection.receive())
            await connection.close()

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as asking:
                    asking.start_soon(ask)
                    await anyio.sleep(0.05)
                    assert not answers
                    group.start_soon(listener.serve, echo)
                await listener.close()
        assert answers == [b"anybody there?"]

    async def test_a_connection_is_closed_when_its_handler_returns(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async def answer_once(connection: Connection) -> None:
            await connection.send(await connection.receive())

        async with _serving(transport, listen_url, answer_once) as listener:
            with anyio.fail_after(PATIENCE_S):
                connection = await dialer.connect(listener.url)
                await connection.send(b"once")
                assert await connection.receive() == b"once"
                with pytest.raises(ConnectionClosed):
                    await connection.receive()
                await connection.close()

    async def test_a_handler_that_raises_ends_its_own_connection_only(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async def fail_on_request(connection: Connection) -> None:
            while (data := await connection.receive()) != b"fail":
                await connection.send(data)
            raise RuntimeError("a handler with a bug")

        async with _serving(transport, listen_url, fail_on_request) as listener:
            with anyio.fail_after(PATIENCE_S):
                failing = await dialer.connect(listener.url)
                bystander = await dialer.connect(listener.url)
                await failing.send(b"fail")
                with pytest.raises(ConnectionClosed):
                    await failing.receive()
                await bystander.send(b"not me")
                assert await bystander.receive() == b"not me"
                newcomer = await dialer.connect(listener.url)
                await newcomer.send(b"nor me")
                assert await newcomer.receive() == b"nor me"
                for connection in (failing, bystander, newcomer):
                    await connection.close()

    async def test_many_connections_are_served_at_once_and_kept_apart(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with _serving(transport, listen_url, echo) as listener:
            everybody_in = anyio.Event()
            inside = 0

            async def visit(number: int) -> None:
                nonlocal inside
                connection = await dialer.connect(listener.url)
                for round_ in range(5):
                    data = f"{number}/{round_}".encode()
                    await connection.send(data)
                    assert await connection.receive() == data
                    if round_ == 0:  # It is served: nobody leaves until everybody is.
                        inside += 1
                        if inside == 40:
                            everybody_in.set()
                        await everybody_in.wait()
                await connection.close()

            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    for number in range(40):
                        group.start_soon(visit, number)

    async def test_cancelling_serve_ends_its_connections(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with _serving(transport, listen_url, echo) as listener:
            with anyio.fail_after(PATIENCE_S):
                connection = await dialer.connect(listener.url)
                await connection.send(b"hello")
                assert await connection.receive() == b"hello"
        with anyio.fail_after(PATIENCE_S), pytest.raises(ConnectionClosed):
            await connection.receive()
        await connection.close()

    async def test_closing_a_listener_ends_all_and_frees_the_address(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)
        served = anyio.Event()

        async def serve() -> None:
            await listener.serve(echo)
            served.set()

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(serve)
                connections = [await dialer.connect(listener.url) for _ in range(3)]
                await connections[0].send(b"hello")
                assert await connections[0].receive() == b"hello"
                await listener.close()
                await listener.close()
                for connection in connections:
                    with pytest.raises(ConnectionClosed):
                        await connection.receive()
                await served.wait()
            with pytest.raises(TransportError):
                await dialer.connect(listener.url)
            again = await transport.listen(listener.url)
            await again.close()
            for connection in connections:
                await connection.close()

    async def test_a_listener_can_be_closed_from_a_handler(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)

        async def close_all(connection: Connection) -> None:
            await connection.receive()
            await listener.close()

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, close_all)
                connection = await dialer.connect(listener.url)
                await connection.send(b"close")
                with pytest.raises(ConnectionClosed):
                    await connection.receive()
                await connection.close()

    async def test_a_listener_that_never_served_can_be_closed(
        self, transport: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)
        with anyio.fail_after(PATIENCE_S):
            await listener.close()
            await listener.close()

    # --- refusals -----------------------------------------------------------------------------

    async def test_an_address_that_is_taken_is_refused_with_a_sentence(
        self, transport: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)
        with pytest.raises(TransportError, match="in use"):
            await transport.listen(listener.url)
        await listener.close()

    async def test_dialing_nobody_is_a_transport_error_that_names_the_url(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        listener = await transport.listen(listen_url)
        await listener.close()
        with anyio.fail_after(PATIENCE_S), pytest.raises(TransportError) as caught:
            await dialer.connect(listener.url)
        assert listener.url in str(caught.value)

    async def test_a_cancelled_connect_leaves_the_listener_unharmed(
        self, transport: Transport, dialer: Transport, listen_url: str
    ) -> None:
        async with _serving(transport, listen_url, echo) as listener:
            for pause in (0.0, 0.0005, 0.002):
                with anyio.move_on_after(pause):
                    await (await dialer.connect(listener.url)).close()
            with anyio.fail_after(PATIENCE_S):
                connection = await dialer.connect(listener.url)
                await connection.send(b"fine")
                assert await connection.receive() == b"fine"
                await connection.close()

    async def test_urls_that_make_no_sense_are_config_errors(
        self, transport: Transport, dialer: Transport, bad_urls: list[str]
    ) -> None:
        assert bad_urls
        for url in bad_urls:
            with pytest.raises(ConfigError):
                await transport.listen(url)
            with pytest.raises(ConfigError):
                await dialer.connect(url)


class _Flood:
    """Sends FLOOD_MESSAGES numbered messages and counts those whose `send` returned."""

    def __init__(self, source: Connection, size: int) -> None:
        self._source = source
        self._filling = random.Random(0).randbytes(size - 4)  # Zeros would be compressed to nothing.
        self.sent = 0

    def message(self, number: int) -> bytes:
        return number.to_bytes(4, "big") + self._filling

    async def run(self) -> None:
        while self.sent < FLOOD_MESSAGES:
            await self._source.send(self.message(self.sent))
            self.sent += 1

    async def stalled(self) -> None:
        """Return when nothing has been sent for a while, or all has."""
        before, alike = -1, 0
        while alike < LOOKS and self.sent != FLOOD_MESSAGES:
            alike = alike + 1 if self.sent == before else 0
            before = self.sent
            await anyio.sleep(STALLED_S / LOOKS)


async def _send_all(source: Connection, messages: list[bytes]) -> None:
    for message in messages:
        await source.send(message)


async def _send_all_without_waiting(source: Connection, messages: list[bytes]) -> None:
    """Send without waiting where that is possible."""
    for message in messages:
        if not source.send_nowait(message):
            await source.send(message)


async def _send_if_open(source: Connection, message: bytes) -> None:
    with suppress(ConnectionClosed):
        await source.send(message)


async def _expect_all(sink: Connection, messages: list[bytes]) -> None:
    for message in messages:
        assert await sink.receive() == message


@asynccontextmanager
async def _serving(
    transport: Transport, url: str, handler: Callable[[Connection], Awaitable[None]]
) -> AsyncIterator[Listener]:
    listener = await transport.listen(url)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, handler)
        try:
            yield listener
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await listener.close()
