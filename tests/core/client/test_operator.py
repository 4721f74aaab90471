"""The operator's verbs against a master that the test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from edgerm_core.client import Operator, RequestFailed, connect_operator
from edgerm_core.ids import TaskId
from edgerm_core.messages import (
    Answer,
    Done,
    Drain,
    Failed,
    Forget,
    KillTasks,
    LogData,
    LogGet,
    Query,
)
from tests.core.client.conftest import PeerScript, ScriptedMaster, doing

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def operating(master: ScriptedMaster) -> AsyncIterator[tuple[Operator, PeerScript]]:
    peers: list[PeerScript] = []

    async def accept() -> None:
        peers.append(await master.accept_operator())

    async with anyio.create_task_group() as group:
        group.start_soon(accept)
        async with connect_operator(master.url, plugins=master.plugins) as operator:
            yield operator, peers[0]


async def test_a_query_returns_rows_and_total(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer):
        async with doing(lambda: operator.query("tasks", state="RUNNING", limit=1)) as call:
            request = await peer.expect(Query)
            assert (request.kind, request.args) == ("tasks", {"state": "RUNNING", "limit": 1})
            await peer.send(Answer(request.request_id, ({"id": "t1"},), 7))
        answer = await call.value()
        assert (answer.rows, answer.total) == (({"id": "t1"},), 7)


async def test_each_order_is_sent_and_awaited(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer):
        async with doing(lambda: operator.drain("a1", undo=True)):
            drain = await peer.expect(Drain)
            assert (drain.agent_id, drain.undo) == ("a1", True)
            await peer.send(Done(drain.request_id))
        async with doing(lambda: operator.forget("a1")):
            forget = await peer.expect(Forget)
            assert forget.agent_id == "a1"
            await peer.send(Done(forget.request_id))
        async with doing(lambda: operator.kill([TaskId(3)], grace_s=0)):
            kill = await peer.expect(KillTasks)
            assert (kill.task_ids, kill.grace_s) == ((3,), 0)
            await peer.send(Done(kill.request_id))


async def test_a_failed_order_raises_the_masters_sentence(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer):
        async with doing(lambda: operator.drain("nobody")) as call:
            request = await peer.expect(Drain)
            await peer.send(Failed(request.request_id, "not-found", "there is no agent nobody"))
        with pytest.raises(RequestFailed, match="there is no agent nobody") as caught:
            await call.value()
        assert caught.value.code == "not-found"


async def test_a_query_cut_off_is_asked_again(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer), doing(lambda: operator.query("agents")) as call:
        await peer.expect(Query)
        await peer.drop()
        peer = await master.accept_operator()
        request = await peer.expect(Query)
        await peer.send(Answer(request.request_id, (), 0))
        assert (await call.value()).rows == ()


async def test_a_long_listing_comes_in_several_answers(master: ScriptedMaster) -> None:
    async with (
        operating(master) as (operator, peer),
        doing(lambda: operator.query("tasks", limit=5)) as call,
    ):
        for offset, limit in ((None, 5), (2, 3), (4, 1)):
            request = await peer.expect(Query)
            assert (request.args.get("offset"), request.args["limit"]) == (offset, limit)
            begin = offset or 0
            rows = tuple({"id": number} for number in range(begin, min(begin + 2, begin + limit)))
            await peer.send(Answer(request.request_id, rows, 9))
        answer = await call.value()
        assert ([row["id"] for row in answer.rows], answer.total) == ([0, 1, 2, 3, 4], 9)


async def test_a_listing_that_shrinks_between_its_answers_comes_to_an_end(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer), doing(lambda: operator.query("tasks")) as call:
        request = await peer.expect(Query)
        await peer.send(Answer(request.request_id, ({"id": 0},), 3))
        request = await peer.expect(Query)
        await peer.send(Answer(request.request_id, (), 3))
        assert len((await call.value()).rows) == 1


async def test_an_operator_reads_the_log_of_an_attempt(master: ScriptedMaster) -> None:
    async with operating(master) as (operator, peer):

        async def read() -> bytes:
            return b"".join([piece async for piece in operator.logs(TaskId(4), "stderr", attempt=2)])

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            assert (request.task_id, request.attempt) == (4, 2)
            await peer.send(LogData(request.request_id, 0, b"oops", end=True))
        assert await call.value() == b"oops"
