"""Messages joined into frames, and writers that wait while too much is on its way."""

from __future__ import annotations

import anyio
import pytest

from edgerm_core.client.outbox import OUTBOX_BYTES, Outbox
from edgerm_core.errors import ConnectionClosed
from edgerm_core.limits import MAX_BATCH_MESSAGES

pytestmark = pytest.mark.anyio


async def test_what_waits_leaves_in_one_frame_up_to_its_limits() -> None:
    box = Outbox()
    for part in (b"aaa", b"bbb", b"cccccccc", b"d"):
        await box.put(part)
    assert await box.take(8) == b"aaabbb"
    assert await box.take(8) == b"cccccccc"
    assert await box.take(8) == b"d"
    for _ in range(MAX_BATCH_MESSAGES + 1):
        box.post(b"x")
    assert len(await box.take(1 << 20)) == MAX_BATCH_MESSAGES


async def test_a_message_larger_than_a_frame_leaves_alone() -> None:
    box = Outbox()
    await box.put(b"0123456789")
    await box.put(b"x")
    assert await box.take(4) == b"0123456789"


async def test_a_writer_waits_while_the_outbox_is_full() -> None:
    box = Outbox()
    await box.put(bytes(OUTBOX_BYTES))
    with anyio.move_on_after(0.02) as scope:
        await box.put(b"late")
    assert scope.cancelled_caught
    await box.take(1)
    await box.put(b"now")
    assert await box.take(100) == b"now"


async def test_closing_wakes_a_waiting_writer() -> None:
    box = Outbox()
    await box.put(bytes(OUTBOX_BYTES))
    async with anyio.create_task_group() as group:

        async def write() -> None:
            with pytest.raises(ConnectionClosed, match="cut"):
                await box.put(b"x")

        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        box.close("cut")
    box.post(b"dropped")
    await box.drained()


async def test_drained_waits_until_the_last_frame_has_left() -> None:
    box = Outbox()
    await box.put(b"x")
    drained = anyio.Event()
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            await box.drained()
            drained.set()

        group.start_soon(wait)
        await box.take(10)
        await anyio.wait_all_tasks_blocked()
        assert not drained.is_set()  # Taken, but perhaps not sent.
        with anyio.move_on_after(0.01):
            await box.take(10)
        await anyio.wait_all_tasks_blocked()
        assert drained.is_set()
