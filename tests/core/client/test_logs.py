"""Log streams: in order, resumed, gaps marked, slow readers."""

from __future__ import annotations

import anyio
import pytest

from edgerm_core.client import LogPiece, RequestFailed
from edgerm_core.client import logs as logs_module
from edgerm_core.client.mailbox import MAILBOX_BYTES
from edgerm_core.messages import LogData, LogGet, LogStream, Message, Reconcile
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import (
    WAIT_S,
    PeerScript,
    ScriptedMaster,
    connected,
    doing,
    submit_one,
    update,
)

pytestmark = pytest.mark.anyio


async def test_a_log_is_read_to_its_present_end(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)

        async def read() -> bytes:
            return b"".join([piece async for piece in made.logs()])

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            assert (request.task_id, request.stream, request.offset) == (1, LogStream.STDOUT, 0)
            assert not request.follow
            await peer.send(LogData(request.request_id, 0, b"one\n"))
            await peer.send(LogData(request.request_id, 4, b"two\n", end=True))
        assert await call.value() == b"one\ntwo\n"
        await peer.expect_nothing()


async def test_what_the_ring_dropped_is_marked(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)

        async def read() -> list[tuple[bytes, int, int]]:
            return [(bytes(p), p.offset, p.missed_bytes) async for p in made.logs()]

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            await peer.send(
                LogData(request.request_id, 100, b"late"),
                LogData(request.request_id, 104, b"r"),
                LogData(request.request_id, 200, b"!", end=True),
            )
        assert await call.value() == [(b"late", 100, 100), (b"r", 104, 0), (b"!", 200, 95)]


async def test_following_goes_on_at_the_offset_reached_after_a_lost_connection(
    master: ScriptedMaster,
) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(update(1, 2, TaskState.RUNNING, attempt=2))
        await made.wait_running()
        first_piece = anyio.Event()

        async def read() -> bytes:
            data = b""
            async for piece in made.logs(follow=True, tail_bytes=10):
                data += piece
                first_piece.set()
            return data

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            assert (request.offset, request.follow, request.attempt) == (-10, True, 2)
            await peer.send(LogData(request.request_id, 90, b"0123456789"))
            await first_piece.wait()
            await peer.drop()
            peer = await master.accept_framework()
            request = await _expect_log_get(peer)
            assert (request.offset, request.attempt) == (100, 2)
            # A piece that overlaps what was read is shortened.
            await peer.send(LogData(request.request_id, 98, b"89abc", end=True))
        assert await call.value() == b"0123456789abc"


async def _expect_log_get(peer: PeerScript) -> LogGet:
    """Return the LogGet that comes beside the reconnect's Reconcile."""
    while True:
        message = await peer.expect(Message)
        if isinstance(message, LogGet):
            return message
        assert isinstance(message, Reconcile)


async def test_both_streams_come_merged(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)

        async def read() -> list[tuple[LogStream, bytes]]:
            return [(p.stream, bytes(p)) async for p in made.logs("both")]

        async with doing(read) as call:
            out, err = await peer.expect(LogGet), await peer.expect(LogGet)
            assert (out.stream, err.stream) == (LogStream.STDOUT, LogStream.STDERR)
            await peer.send(
                LogData(err.request_id, 0, b"e", end=True), LogData(out.request_id, 0, b"o", end=True)
            )
        assert await call.value() == [(LogStream.STDERR, b"e"), (LogStream.STDOUT, b"o")]


async def test_a_reader_that_leaves_cancels_the_stream(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(update(1, 2, TaskState.RUNNING, attempt=1))
        await made.wait_running()
        pieces = made.logs(follow=True)

        async def read_one() -> LogPiece:
            piece: LogPiece = await anext(pieces)
            return piece

        async with doing(read_one) as call:
            request = await peer.expect(LogGet)
            await peer.send(LogData(request.request_id, 0, b"x"))
        assert await call.value() == b"x"
        await pieces.aclose()
        cancel = await peer.expect(LogGet)
        assert cancel.cancel
        assert cancel.request_id == request.request_id


async def test_a_problem_is_raised_after_what_came_before_it(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        seen: list[bytes] = []

        async def read() -> None:
            async for piece in made.logs():
                seen.append(piece)

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            await peer.send(LogData(request.request_id, 0, b"x"))
            await peer.send(LogData(request.request_id, 0, end=True, problem="agent gw is not connected"))
        with pytest.raises(RequestFailed, match="log of task t1: agent gw is not connected"):
            await call.value()
        assert seen == [b"x"]


async def test_an_agent_that_comes_back_later_than_the_master_is_waited_for(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "RETRY_S", 0.01)
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(update(1, 2, TaskState.RUNNING, attempt=1))
        await made.wait_running()

        async def read() -> bytes:
            return b"".join([piece async for piece in made.logs(follow=True)])

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            await peer.send(LogData(request.request_id, 0, b"before "))
            await peer.drop()
            peer = await master.accept_framework()
            for _ in range(3):
                request = await _expect_log_get(peer)
                assert (request.offset, request.cancel) == (7, False)
                await peer.send(
                    LogData(request.request_id, 0, end=True, problem="agent gw is not connected")
                )
            request = await _expect_log_get(peer)
            await peer.send(LogData(request.request_id, 7, b"after", end=True))
        assert await call.value() == b"before after"


async def test_an_agent_that_stays_away_ends_the_wait(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "PATIENCE_S", 0.0)
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(update(1, 2, TaskState.RUNNING, attempt=1))

        async def read() -> None:
            async for _ in made.logs(follow=True):
                pass

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            await peer.send(LogData(request.request_id, 0, b"x"))
            await peer.send(LogData(request.request_id, 0, end=True, problem="agent gw is not connected"))
        with pytest.raises(RequestFailed, match="gw is not connected"):
            await call.value()


async def test_a_reader_slower_than_the_log_asks_again_instead_of_filling_memory(
    master: ScriptedMaster,
) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        piece_bytes = 512 << 10
        total = MAILBOX_BYTES + 4 * piece_bytes
        flooded = anyio.Event()

        async def read() -> int:
            read_bytes = 0
            async for piece in made.logs():
                assert piece.offset == read_bytes
                assert piece.missed_bytes == 0
                read_bytes += len(piece)
                await flooded.wait()
            return read_bytes

        async with doing(read) as call:
            request = await peer.expect(LogGet)
            for offset in range(0, total, piece_bytes):
                end = offset + piece_bytes >= total
                await peer.send(LogData(request.request_id, offset, bytes(piece_bytes), end=end))
            await made_sure_received(peer)
            flooded.set()
            cancel = await peer.expect(LogGet)
            assert cancel.cancel
            again = await peer.expect(LogGet)
            assert MAILBOX_BYTES - piece_bytes <= again.offset <= MAILBOX_BYTES + piece_bytes
            for offset in range(again.offset, total, piece_bytes):
                end = offset + piece_bytes >= total
                await peer.send(LogData(again.request_id, offset, bytes(piece_bytes), end=end))
        assert await call.value() == total


async def made_sure_received(peer: PeerScript) -> None:
    """Wait until the client has taken everything off the connection."""
    outward = peer._connection._outward  # type: ignore[attr-defined]
    with anyio.fail_after(WAIT_S):
        while outward.messages:
            await outward.wait()
    await anyio.wait_all_tasks_blocked()
