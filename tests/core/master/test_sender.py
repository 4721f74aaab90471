"""The sender: no task where a transport does not wait, one where it does, and none that stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from edgerm_core.errors import ConnectionClosed
from edgerm_core.ids import SessionId
from edgerm_core.master.port import SessionPort
from edgerm_core.master.sender import Sender
from tests.core.master.lines import Line, SlowLine

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0


@asynccontextmanager
async def sending() -> AsyncIterator[Sender]:
    sender = Sender()
    async with anyio.create_task_group() as group:
        group.start_soon(sender.run, group)
        with anyio.fail_after(PATIENCE_S):
            yield sender
        group.cancel_scope.cancel()


def port_of(sender: Sender, line: Line) -> SessionPort:
    return SessionPort(SessionId(1), line, sender.to_send)


def has_writer(port: SessionPort) -> bool:
    return port.writer is not None


async def test_what_a_transport_takes_at_once_needs_no_writer() -> None:
    async with sending() as sender:
        ports = [port_of(sender, Line(room=2)) for _ in range(1000)]
        for port in ports:
            port.put(b"a")
            port.put(b"b")
        await anyio.wait_all_tasks_blocked()
        assert all(port.connection.sent == [b"ab"] for port in ports)  # type: ignore[attr-defined]
        assert not any(map(has_writer, ports))


async def test_one_that_has_to_wait_holds_up_nobody_else() -> None:
    async with sending() as sender:
        slow, quick = Line(room=0), Line(room=1)
        for line in (slow, quick):
            port_of(sender, line).put(b"x")
        await anyio.wait_all_tasks_blocked()
        assert (slow.sent, quick.sent) == ([], [b"x"])


async def test_order_is_kept_between_waiting_and_not() -> None:
    async with sending() as sender:
        line = Line(room=1, max_message_bytes=1)
        port = port_of(sender, line)
        for n in range(6):
            port.put(b"%d" % n)
        await anyio.wait_all_tasks_blocked()
        assert line.sent == [b"0"]
        assert has_writer(port)
        port.put(b"6")
        line.make_room(10)
        await anyio.wait_all_tasks_blocked()
        assert b"".join(line.sent) == b"0123456"
        assert not has_writer(port), "it can send without waiting again"
        port.put(b"7")
        await anyio.wait_all_tasks_blocked()
        assert line.sent[-1] == b"7"


async def test_a_transport_that_always_waits_keeps_its_writer() -> None:
    async with sending() as sender:
        line = SlowLine(room=10)
        port = port_of(sender, line)
        port.put(b"a")
        await anyio.wait_all_tasks_blocked()
        writer = port.writer
        assert writer is not None
        port.put(b"b")
        await anyio.wait_all_tasks_blocked()
        assert port.writer is writer
        assert line.sent == [b"a", b"b"]


@pytest.mark.parametrize(("kind", "room"), [(Line, 9), (Line, 0), (SlowLine, 9)])
async def test_closing_comes_after_what_waits(kind: type[Line], room: int) -> None:
    line = kind(room)
    async with sending() as sender:
        port = port_of(sender, line)
        port.put(b"last words")
        port.close("enough")
        async with anyio.create_task_group() as group:
            group.start_soon(sender.flush, port)
            await anyio.wait_all_tasks_blocked()
            line.make_room(1)
        assert line.sent == [b"last words"]
        assert line.closed == "enough"
        assert not has_writer(port)


async def test_closing_one_that_has_nothing_to_say() -> None:
    async with sending() as sender:
        line = Line()
        port = port_of(sender, line)
        port.close("enough")
        await sender.flush(port)
        assert line.closed == "enough"


@pytest.mark.parametrize("kind", [Line, SlowLine])
async def test_a_connection_that_has_ended_takes_nobody_with_it(kind: type[Line]) -> None:
    async with sending() as sender:
        line, other = kind(room=5), Line(room=5)
        port = port_of(sender, line)
        line.closed = "gone"
        port.put(b"x")
        await anyio.wait_all_tasks_blocked()
        assert (port.outbox, port.outbox_bytes) == ([], 0)
        port.put(b"more")
        port.close("the reader has found out")
        await sender.flush(port)
        port_of(sender, other).put(b"y")
        await anyio.wait_all_tasks_blocked()
        assert other.sent == [b"y"]


@pytest.mark.parametrize("kind", [Line, SlowLine])
async def test_a_transport_that_fails_is_named_and_closed(
    kind: type[Line], caplog: pytest.LogCaptureFixture
) -> None:
    async with sending() as sender:
        line = kind(room=5)
        line.fails = RuntimeError("a bug of the transport")
        port = port_of(sender, line)
        port.put(b"x")
        await anyio.wait_all_tasks_blocked()
        assert line.closed == "internal error"
        assert "sending to line failed" in caplog.text
        assert "a bug of the transport" in caplog.text


async def test_a_writer_that_is_cancelled_leaves_nothing_behind() -> None:
    async with sending() as sender:
        port = port_of(sender, Line(room=0))
        port.put(b"x")
        port.put(b"y")
        await anyio.wait_all_tasks_blocked()
        writer = port.writer
        assert writer is not None
        writer.cancel()
        await sender.flush(port)
        assert not has_writer(port)
        assert port.outbox == []


async def test_what_a_closed_connection_was_still_given_is_dropped() -> None:
    async with sending() as sender:
        line = Line(room=9)
        port = port_of(sender, line)
        port.close("enough")
        await sender.flush(port)
        port.put(b"an answer that took its time")
        await sender.flush(port)
        with pytest.raises(ConnectionClosed):
            line.send_nowait(b"x")
        assert line.sent == []
