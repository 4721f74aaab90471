"""One connection: the greeting, requests, and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from edgerm_core.builtin.memory_transport import MemoryListener
from edgerm_core.client import link as link_module
from edgerm_core.client.link import Link, greet
from edgerm_core.codec import encode
from edgerm_core.errors import ConnectionClosed, EdgermError, RefusedError, TransportError
from edgerm_core.messages import (
    AnyMessage,
    Done,
    Greet,
    Greeted,
    Heartbeat,
    Query,
    Refused,
    TaskAcknowledge,
    Unsubscribe,
)
from tests.core.client.conftest import WAIT_S, PeerScript, doing

pytestmark = pytest.mark.anyio

GREETING = Greet((1, 1))


@asynccontextmanager
async def linked(
    push: bool = True, max_message_bytes: int = 1 << 20
) -> AsyncIterator[tuple[Link, PeerScript, list[AnyMessage], list[EdgermError]]]:
    listener = MemoryListener("link", max_message_bytes)
    connection = listener.accept(max_message_bytes)
    other = connection._other
    assert other is not None
    connection.push = push
    heard: list[AnyMessage] = []
    ends: list[EdgermError] = []
    made = Link(connection, Greeted(1), heard.append)

    async def run() -> None:
        ends.append(await made.run([]))

    with anyio.fail_after(WAIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield made, PeerScript(other), heard, ends
            await made.close("the test is over")


async def test_answers_find_their_requests_whatever_their_order() -> None:
    async with linked() as (made, peer, _, _), doing(lambda: made.ask(Unsubscribe)) as one:
        first = await peer.expect(Unsubscribe)
        async with doing(lambda: made.ask(Unsubscribe)) as two:
            second = await peer.expect(Unsubscribe)
            await peer.send(Done(second.request_id), Done(999), Done(first.request_id))
        assert await two.value() == Done(second.request_id)
        assert await one.value() == Done(first.request_id)


async def test_requests_made_together_leave_in_one_frame() -> None:
    async with linked() as (made, peer, _, _):
        for _ in range(5):
            made.post(TaskAcknowledge(()))
        data = await peer._connection.receive()
        assert len(data) == 5 * len(encode(TaskAcknowledge(())))


async def test_other_messages_are_handed_on() -> None:
    async with linked() as (made, peer, heard, _):
        async with doing(lambda: made.ask(Unsubscribe)) as call:
            request = await peer.expect(Unsubscribe)
            await peer.send(Heartbeat(), Done(request.request_id))
        await call.value()
        assert heard == [Heartbeat()]


async def test_a_refusal_is_the_end_and_says_why() -> None:
    async with linked() as (made, peer, _, ends):
        async with doing(lambda: made.ask(Unsubscribe)) as call:
            await peer.expect(Unsubscribe)
            await peer.send(Refused("slow", "reads too slowly"))
            await peer.drop()
        with pytest.raises(ConnectionClosed, match="reads too slowly"):
            await call.value()
        assert made.ended
        with pytest.raises(ConnectionClosed):
            await made.ask(Unsubscribe)
    assert isinstance(ends[0], RefusedError)


async def test_a_message_too_large_for_the_connection_harms_nothing() -> None:
    async with linked(max_message_bytes=100) as (made, peer, _, _):
        with pytest.raises(ValueError, match="exceeds the 100"):
            await made.ask(lambda request_id: Query(request_id, "x" * 200))
        async with doing(lambda: made.ask(Unsubscribe)):
            request = await peer.expect(Unsubscribe)
            await peer.send(Done(request.request_id))


async def test_where_the_master_cannot_push_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "POLL_S", 0.01)
    async with linked(push=False) as (_, peer, _, _):
        await peer.expect(Heartbeat)
        await peer.expect(Heartbeat)


async def greeted_by(*answers: AnyMessage) -> tuple[object, list[AnyMessage]]:
    listener = MemoryListener("greeting", 1 << 20)
    connection = listener.accept(1 << 20)
    assert connection._other is not None
    peer = PeerScript(connection._other)
    async with doing(lambda: greet(connection, GREETING)) as call:
        await peer.expect(Greet)
        await peer.send(*answers)
    result: tuple[object, list[AnyMessage]] = await call.value()
    return result


async def test_what_comes_with_the_greetings_answer_is_kept() -> None:
    assert await greeted_by(Greeted(1, "m"), Heartbeat()) == (Greeted(1, "m"), [Heartbeat()])


async def test_a_refused_greeting_raises() -> None:
    with pytest.raises(RefusedError, match="not here"):
        await greeted_by(Refused("unauthenticated", "not here"))


async def test_an_answer_that_is_no_greeting_raises() -> None:
    with pytest.raises(TransportError, match="answered the greeting with Done"):
        await greeted_by(Done(1))


async def test_no_answer_to_the_greeting_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "GREETING_TIMEOUT_S", 0.02)
    connection = MemoryListener("greeting", 1 << 20).accept(1 << 20)
    with pytest.raises(TransportError, match="did not answer the greeting"):
        await greet(connection, GREETING)
