"""One device's connection: frames in, frames out when there is room, and a goodbye."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from edgerm_core.agent.blob_cache import BlobCache
from edgerm_core.agent.blobs import BlobFetcher
from edgerm_core.builtin.memory_transport import MemoryConnection, MemoryTransport
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed
from edgerm_core.gateway import events
from edgerm_core.gateway.effects import CloseDevice
from edgerm_core.gateway.link import DeviceLink
from edgerm_core.ids import BlobId, SessionId, blob_id
from edgerm_core.interfaces import Connection
from edgerm_core.messages import BlobData, BlobGet, Failed, Heartbeat, HeartbeatAck, Message, Refused

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
S1 = SessionId(1)
MODULE = b"module" * 100


class Bench:
    """The link, the device at its other end, and the events that came of it."""

    def __init__(self, tasks: anyio.abc.TaskGroup, device: MemoryConnection, directory: Path) -> None:
        self.device = device
        self.events: list[events.Event] = []
        self.cache = BlobCache(directory, 1 << 20)
        self.asked: list[Message] = []
        self.blobs = BlobFetcher(self.cache, tasks, self.asked.append)
        self.link: DeviceLink
        self.room = anyio.Event()
        self.room.set()
        self._changed = anyio.Event()

    async def serve(self, connection: Connection) -> None:
        self.link = DeviceLink(S1, connection, self.handle, self.wait_room, self.blobs)
        await self.link.run()

    async def wait_room(self) -> None:
        await self.room.wait()

    def handle(self, event: events.Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, kind: type[events.Event], count: int = 1) -> None:
        with anyio.fail_after(PATIENCE_S):
            while sum(isinstance(event, kind) for event in self.events) < count:
                await self._changed.wait()

    async def received(self) -> list[Message]:
        with anyio.fail_after(PATIENCE_S):
            return list(decode_batch(await self.device.receive()))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    transport = MemoryTransport(1000)
    listener = await transport.listen("memory://device-link")
    async with anyio.create_task_group() as tasks:
        bench = Bench(tasks, await transport.connect("memory://device-link"), tmp_path)
        tasks.start_soon(listener.serve, bench.serve)
        await bench.until(events.DeviceReady)
        yield bench
        tasks.cancel_scope.cancel()
    await listener.close()


async def test_frames_become_events(bench: Bench) -> None:
    await bench.device.send(encode(Heartbeat()))
    await bench.until(events.DeviceSaid)
    assert bench.events == [
        events.DeviceConnected(S1, "memory://device-link#1", 1000),
        events.DeviceReady(S1),
        events.DeviceSaid(S1, [Heartbeat()]),
    ]


async def test_the_next_frame_is_asked_for_when_one_has_left(bench: Bench) -> None:
    bench.link.send(encode(HeartbeatAck()))
    assert await bench.received() == [HeartbeatAck()]
    await bench.until(events.DeviceReady, 2)


async def test_nothing_is_read_while_there_is_no_room_upstream(bench: Bench) -> None:
    bench.room = anyio.Event()
    await bench.device.send(encode(Heartbeat()))
    await bench.device.send(encode(Heartbeat()))
    await bench.until(events.DeviceSaid)
    await anyio.lowlevel.checkpoint()
    assert sum(isinstance(event, events.DeviceSaid) for event in bench.events) == 1
    bench.room.set()
    await bench.until(events.DeviceSaid, 2)


async def test_a_device_that_hangs_up_is_gone(bench: Bench) -> None:
    await bench.device.close("enough")
    await bench.until(events.DeviceGone)
    assert isinstance(bench.events[-1], events.DeviceGone)
    assert "enough" in bench.events[-1].reason


async def test_a_refusal_is_said_before_the_connection_ends(bench: Bench) -> None:
    bench.link.close(CloseDevice(S1, "no", Refused("limit", "x" * 1000)))
    (refused,) = await bench.received()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.message) == ("limit", "x" * 125), "cut to what the frame holds"
    with pytest.raises(ConnectionClosed):
        await bench.device.receive()
    await bench.until(events.DeviceGone)


async def test_a_device_that_reads_nothing_is_closed_all_the_same(bench: Bench) -> None:
    for _ in range(20):
        bench.link.send(encode(HeartbeatAck()))
        await anyio.lowlevel.checkpoint()
    bench.link.close(CloseDevice(S1, "no"))
    await bench.until(events.DeviceGone)


async def test_what_is_no_message_ends_the_connection(bench: Bench) -> None:
    await bench.device.send(b"\xff")
    (refused,) = await bench.received()
    assert isinstance(refused, Refused)
    assert refused.code == "malformed"
    await bench.until(events.DeviceGone)


def keep(bench: Bench, data: bytes) -> BlobId:
    """Put a blob into the cache."""
    blob = blob_id(data)
    bench.cache.part_path(blob).write_bytes(data)
    assert bench.cache.finish(blob)
    bench.cache.add(blob)
    return blob


@pytest.mark.parametrize(
    ("offset", "length", "data"),
    [(0, 10, MODULE[:10]), (590, 100, MODULE[590:]), (700, 10, b""), (0, 10_000, MODULE)],
)
async def test_a_piece_of_a_blob_is_read_from_the_cache(
    bench: Bench, offset: int, length: int, data: bytes
) -> None:
    blob = keep(bench, MODULE)
    bench.link.serve_blob(BlobGet(5, blob, offset, length))
    await bench.until(events.BlobAnswered)
    assert bench.events[-1] == events.BlobAnswered(S1, BlobData(5, blob, offset, 600, data))


async def test_a_piece_fits_into_the_devices_frames(bench: Bench) -> None:
    blob = keep(bench, bytes(5000))
    bench.link.serve_blob(BlobGet(5, blob, 0, 5000))
    await bench.until(events.BlobAnswered)
    answer = bench.events[-1]
    assert isinstance(answer, events.BlobAnswered)
    assert 800 < len(encode(answer.message)) <= 1000


async def test_several_requests_for_a_missing_blob_share_one_fetch(bench: Bench) -> None:
    blob = blob_id(MODULE)
    bench.blobs.session_began()
    for request_id in range(20):
        bench.link.serve_blob(BlobGet(request_id, blob, 0, 10))
    with anyio.fail_after(PATIENCE_S):
        while not bench.asked:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    (get,) = bench.asked
    assert isinstance(get, BlobGet)
    bench.blobs.on_message(BlobData(get.request_id, blob, 0, len(MODULE), MODULE))
    await bench.until(events.BlobAnswered, 8)
    answers = [event.message for event in bench.events if isinstance(event, events.BlobAnswered)]
    assert sorted(answer.request_id for answer in answers) == list(range(8)), "the others are repeated"


async def test_a_blob_that_cannot_be_had_is_answered(bench: Bench) -> None:
    blob = blob_id(MODULE)
    bench.blobs.session_began()
    bench.link.serve_blob(BlobGet(5, blob, 0, 10))
    with anyio.fail_after(PATIENCE_S):
        while not bench.asked:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    (get,) = bench.asked
    assert isinstance(get, BlobGet)
    bench.blobs.on_message(Failed(get.request_id, "not-found", "nobody has it"))
    await bench.until(events.BlobAnswered)
    answer = bench.events[-1]
    assert isinstance(answer, events.BlobAnswered)
    assert isinstance(answer.message, Failed)
    assert "nobody has it" in answer.message.message


async def test_the_blob_a_device_is_reading_is_not_evicted_and_then_let_go(bench: Bench) -> None:
    first, second = keep(bench, bytes(700_000)), blob_id(b"second")
    bench.link.serve_blob(BlobGet(5, first, 0, 10))
    await bench.until(events.BlobAnswered)
    other = keep(bench, b"\1" * 700_000)
    assert first in bench.cache
    assert other not in bench.cache, "somebody has to go"
    bench.link.serve_blob(BlobGet(6, second, 0, 10))
    await anyio.lowlevel.checkpoint()
    keep(bench, b"\2" * 700_000)
    assert first not in bench.cache
