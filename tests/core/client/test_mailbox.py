"""Answers that wait for whoever asked."""

from __future__ import annotations

import anyio
import pytest

from edgerm_core.client.mailbox import MAILBOX_BYTES, Mailbox
from edgerm_core.errors import ConnectionClosed
from edgerm_core.messages import Done, LogData

pytestmark = pytest.mark.anyio


async def test_answers_come_in_order_also_to_one_who_waits() -> None:
    box = Mailbox()
    box.put(Done(1))
    assert await box.get() == Done(1)
    async with anyio.create_task_group() as group:

        async def read() -> None:
            assert [await box.get(), await box.get()] == [Done(2), Done(3)]

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        box.put(Done(2))
        box.put(Done(3))


async def test_what_came_before_the_end_can_still_be_read() -> None:
    box = Mailbox()
    box.put(Done(1))
    box.lose("the network went away")
    assert await box.get() == Done(1)
    with pytest.raises(ConnectionClosed, match="network went away"):
        await box.get()


async def test_beyond_the_limit_it_keeps_the_front_and_says_so() -> None:
    box = Mailbox()
    box.put(LogData(1, 0, bytes(MAILBOX_BYTES)))
    box.put(LogData(1, MAILBOX_BYTES, b"x"))
    first = await box.get()
    box.put(LogData(1, MAILBOX_BYTES + 1, b"y"))  # Would come out of order.
    assert isinstance(first, LogData)
    assert box.overflowed
    assert await box.get() is None


async def test_a_cancelled_get_loses_nothing() -> None:
    box = Mailbox()
    with anyio.move_on_after(0.01):
        await box.get()
    box.put(Done(1))
    assert await box.get() == Done(1)
