"""The dialing side: when it speaks, and what it does about a network that is bad or changes."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.message import GET, NON, POST, decode_datagram
from edgerm_transport_coap.session import Session
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection

from .proxy import Proxy, proxy_to
from .raw import PATIENCE_S, Sessions, echo, listening

pytestmark = pytest.mark.anyio

LIVELY = CoapConfig(ack_timeout_s=0.03, keepalive_s=0.2, silence_s=15)

PATIENT = 20.0
"""An `ack_timeout_s` within which everything is answered, however slow the machine is: what is counted is
sent once."""


@asynccontextmanager
async def through_proxy(
    sessions: Sessions, config: CoapConfig = LIVELY, seed: int = 0
) -> AsyncIterator[tuple[Connection, Session, Proxy]]:
    """Yield (dialing end, listening end, proxy between them)."""
    async with listening(sessions) as listener, proxy_to(listener.url, seed) as proxy:
        dialing = await CoapTransport(config).connect(proxy.url)
        listening_end = await sessions.next()
        assert isinstance(listening_end, Session)
        try:
            yield dialing, listening_end, proxy
        finally:
            await dialing.close()


async def settled(proxy: Proxy) -> None:
    """Wait until nothing has been said for a while.

    A process that stands still in between does so in one of many sleeps; what is under way goes on in the
    others.
    """
    seen = -1
    while seen != len(proxy.up):
        seen = len(proxy.up)
        for _ in range(15):
            await anyio.sleep(0.01)


async def until_it_observes(listening_end: Session) -> None:
    """Wait until the connection has asked for the bell."""
    with anyio.fail_after(PATIENCE_S):
        while not listening_end.push:  # noqa: ASYNC110 - nobody is told
            await anyio.sleep(0.01)


async def test_the_master_rings_and_the_connection_fetches(sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=PATIENT)
    async with through_proxy(sessions, config) as (dialing, listening_end, proxy):
        assert dialing.push
        await until_it_observes(listening_end)
        await settled(proxy)
        up = len(proxy.up)
        await listening_end.send(b"order")
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == b"order"
        await settled(proxy)
        assert len(proxy.up) - up == 2  # The note's acknowledgement, and the exchange.


async def test_without_a_bell_what_waits_comes_with_the_next_message(sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=PATIENT, observe=False)
    async with through_proxy(sessions, config) as (dialing, listening_end, proxy):
        assert not dialing.push
        await settled(proxy)
        assert not any(decode_datagram(data).code == GET for data in proxy.up)
        up = len(proxy.up)
        await listening_end.send(b"order")
        await settled(proxy)
        assert len(proxy.up) == up
        await dialing.send(b"hello")
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == b"order"
        assert not listening_end.push


async def test_without_a_bell_an_answer_that_was_not_there_yet_is_asked_for_again(
    sessions: Sessions,
) -> None:
    config = CoapConfig(ack_timeout_s=0.5, observe=False)
    async with through_proxy(sessions, config) as (dialing, listening_end, _):
        await dialing.send(b"a question that takes a while")
        await listening_end.receive()
        await anyio.sleep(0.25)
        await listening_end.send(b"the answer")
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == b"the answer"


async def test_without_a_bell_a_question_without_answer_is_given_up(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_transport_coap.connection.ASK_AGAIN_S", (0.01, 0.02))
    config = CoapConfig(ack_timeout_s=PATIENT, observe=False)
    async with through_proxy(sessions, config) as (dialing, _, proxy):

        def asked() -> int:
            return len([data for data in proxy.up if decode_datagram(data).code == POST])

        await dialing.send(b"nothing to say to that")
        with anyio.fail_after(PATIENCE_S):
            while asked() < 4:  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)
        await settled(proxy)
        assert asked() == 4


async def test_a_quiet_connection_keeps_its_way_back_open(sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=PATIENT, keepalive_s=0.2)
    async with through_proxy(sessions, config) as (_, listening_end, proxy):
        await until_it_observes(listening_end)
        begun, up = time.monotonic(), len(proxy.up)
        with anyio.fail_after(PATIENCE_S):
            while len(proxy.up) < up + 4:  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.01)
        assert time.monotonic() - begun > 3 * 0.19
        kept = [decode_datagram(data) for data in proxy.up[up:]]
        assert all(message.kind == NON and not message.payload for message in kept)


async def test_a_message_a_bell_should_have_announced_makes_it_observe_again(
    sessions: Sessions,
) -> None:
    async with through_proxy(sessions) as (dialing, listening_end, _):
        await until_it_observes(listening_end)
        assert listening_end._bell is not None
        listening_end.unhook(listening_end._bell)  # As if notes had gone unconfirmed for long.
        await listening_end.send(b"order")
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == b"order"
            while not listening_end.push:  # noqa: ASYNC110 - nobody is told
                await anyio.sleep(0.02)


async def test_the_session_goes_on_when_the_nat_forgets(sessions: Sessions) -> None:
    async with through_proxy(sessions) as (dialing, listening_end, proxy):
        for number in range(3):
            await dialing.send(b"up %d" % number)
            assert await listening_end.receive() == b"up %d" % number
            proxy.rebind()
            with anyio.fail_after(PATIENCE_S):
                await listening_end.send(b"down %d" % number)
                assert await dialing.receive() == b"down %d" % number


async def test_the_bell_rings_at_the_new_address(sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=PATIENT)  # It does not ask by itself within this test.
    async with through_proxy(sessions, config) as (dialing, listening_end, proxy):
        await until_it_observes(listening_end)
        await settled(proxy)
        proxy.rebind()
        await dialing.send(b"from elsewhere")
        assert await listening_end.receive() == b"from elsewhere"
        await settled(proxy)
        await listening_end.send(b"order")
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == b"order"


@pytest.mark.parametrize(("loss", "seed"), [(0.1, 1), (0.3, 2)])
async def test_nothing_is_lost_doubled_or_reordered_on_a_bad_network(
    sessions: Sessions, loss: float, seed: int
) -> None:
    """While NATs forget, too."""
    chance = random.Random(seed)
    messages = [chance.randbytes(chance.choice((1, 20, 900, 3000))) for _ in range(25)]
    async with through_proxy(sessions, LIVELY, seed) as (dialing, listening_end, proxy):
        proxy.loss, proxy.doubling, proxy.delay_s = loss, 0.2, 0.01
        got: dict[str, list[bytes]] = {"up": [], "down": []}

        async def send_all(end: Connection) -> None:
            for message in messages:
                await end.send(message)

        async def receive_all(end: Connection, name: str) -> None:
            while len(got[name]) < len(messages):
                got[name].append(await end.receive())
                if len(got[name]) % 10 == 0:
                    proxy.rebind()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(send_all, dialing)
                group.start_soon(send_all, listening_end)
                group.start_soon(receive_all, dialing, "down")
                group.start_soon(receive_all, listening_end, "up")
        assert got == {"up": messages, "down": messages}


async def test_a_master_that_has_been_restarted_knows_no_session() -> None:
    async with listening() as first:
        url = first.url
        connection = await CoapTransport(LIVELY).connect(url)
        await connection.send(b"hello")
        assert await connection.receive() == b"hello"
        first._carrier.close()  # type: ignore[union-attr] # As a power cut would.
        async with listening(echo, url=url):
            with anyio.fail_after(PATIENCE_S), pytest.raises(ConnectionClosed, match="no such session"):
                await connection.receive()
        await connection.close()


async def test_a_master_that_has_gone_silent_is_given_up(sessions: Sessions) -> None:
    # Longer than a busy machine stands still: it must not be given up before.
    config = CoapConfig(ack_timeout_s=0.03, keepalive_s=0.1, silence_s=6)
    async with through_proxy(sessions, config) as (dialing, _, proxy):
        proxy.silent = True
        with (
            anyio.fail_after(3 * PATIENCE_S),
            pytest.raises(ConnectionClosed, match=r"not answered for 6 s"),
        ):
            await dialing.receive()


async def test_closing_does_not_wait_long_for_a_dead_master(sessions: Sessions) -> None:
    async with through_proxy(sessions) as (dialing, _, proxy):
        proxy.silent = True
        await dialing.send(b"never to arrive")
        start = time.monotonic()
        await dialing.close("going")
        assert time.monotonic() - start < 10  # And not as long as the master may be silent, which is 15 s.


async def test_frames_are_cut_into_blocks_as_small_as_configured(sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=0.5, block_bytes=64, max_message_bytes=4096)
    frame = random.Random(3).randbytes(1000)
    async with through_proxy(sessions, config) as (dialing, listening_end, proxy):
        await dialing.send(frame)
        with anyio.fail_after(PATIENCE_S):
            assert await listening_end.receive() == frame
        await listening_end.send(frame)
        with anyio.fail_after(PATIENCE_S):
            assert await dialing.receive() == frame
        for datagrams in (proxy.up, proxy.down):
            assert max(len(decode_datagram(data).payload) for data in datagrams) == 64
