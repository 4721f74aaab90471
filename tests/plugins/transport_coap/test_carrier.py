"""What every way to a master must do: the same tests over datagrams and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from edgerm_transport_coap.carrier import Carrier, CarrierLost
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.connector import _carriers
from edgerm_transport_coap.message import CONTENT, GET, OBSERVE, POST, URI_PATH, URI_QUERY, Message, Options
from edgerm_transport_coap.url import parse_url

from edgerm_core.interfaces import Connection

from .raw import PATIENCE_S, Sessions, listening

pytestmark = pytest.mark.anyio

SCHEMES = pytest.mark.parametrize("scheme", ["coap", "coap+tcp", "coap+ws"])


@asynccontextmanager
async def carrying(url: str, config: CoapConfig | None = None) -> AsyncIterator[Carrier]:
    async for carrier in _carriers(parse_url(url), config or CoapConfig(ack_timeout_s=0.05)):
        try:
            yield carrier
        finally:
            await carrier.close()
        return


async def open_session(carrier: Carrier) -> Options:
    """Return the path of a new session."""
    answer = await carrier.request(POST, [(URI_PATH, b"e")])
    return [(URI_PATH, value) for number, value in answer.options if number == 8]


@SCHEMES
async def test_requests_get_their_own_answers(scheme: str) -> None:
    async with listening(url=f"{scheme}://127.0.0.1:0") as listener, carrying(listener.url) as carrier:
        path = await open_session(carrier)
        links: list[Message] = []
        async with anyio.create_task_group() as group:

            async def list_links() -> None:
                core: Options = [(URI_PATH, b".well-known"), (URI_PATH, b"core")]
                links.append(await carrier.request(GET, core))

            group.start_soon(list_links)
            answer = await carrier.request(POST, [*path, (URI_QUERY, b"1")], b"hello")
        assert answer.payload == b"hello"
        assert links[0].payload.startswith(b"</e>")


@SCHEMES
async def test_notifications_go_to_whoever_observes(scheme: str, sessions: Sessions) -> None:
    async with (
        listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener,
        carrying(listener.url) as carrier,
    ):
        path = await open_session(carrier)
        connection: Connection = await sessions.next()
        notes: list[Message] = []
        rung = anyio.Event()

        def on_note(note: Message) -> None:
            notes.append(note)
            rung.set()

        first = await carrier.observe(path, on_note)
        assert first.option(OBSERVE) is not None
        assert notes == []
        await connection.send(b"12345")
        with anyio.fail_after(PATIENCE_S):
            await rung.wait()
        assert (notes[0].code, notes[0].payload) == (CONTENT, b"5")


@SCHEMES
async def test_a_cancelled_request_leaves_the_others_alone(scheme: str) -> None:
    async with listening(url=f"{scheme}://127.0.0.1:0") as listener, carrying(listener.url) as carrier:
        path = await open_session(carrier)
        with anyio.move_on_after(0):
            await carrier.request(POST, [*path, (URI_QUERY, b"1")], b"given up")
        answer = await carrier.request(POST, [*path, (URI_QUERY, b"1")], b"given up")
        assert answer.payload in (b"given up", b"")


@SCHEMES
async def test_a_master_that_is_gone_loses_the_requests(scheme: str, sessions: Sessions) -> None:
    config = CoapConfig(ack_timeout_s=0.05, silence_s=8.0)
    async with (
        listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener,
        carrying(listener.url, config) as carrier,
    ):
        path = await open_session(carrier)
        await listener.close()
        with anyio.fail_after(PATIENCE_S), pytest.raises(CarrierLost):
            await carrier.request(POST, [*path, (URI_QUERY, b"1")], b"anybody there?")


@pytest.mark.usefixtures("unhurried")
@SCHEMES
async def test_closing_loses_the_requests_under_way(scheme: str, sessions: Sessions) -> None:
    async with (
        listening(sessions, url=f"{scheme}://127.0.0.1:0") as listener,
        carrying(listener.url) as carrier,
    ):
        path = await open_session(carrier)
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:

                async def ask() -> None:
                    with pytest.raises(CarrierLost):
                        await carrier.request(POST, [*path, (URI_QUERY, b"1")], b"x")

                group.start_soon(ask)
                await anyio.sleep(0.02)
                await carrier.close()
                await carrier.close()
