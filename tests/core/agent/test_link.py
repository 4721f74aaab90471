"""How messages are put into frames, and who waits for them to leave."""

from __future__ import annotations

import itertools
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent.link import Link, frames
from edgerm_core.agent.sandbox import Sandboxes
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.codec import decode_batch
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.messages import Heartbeat, LogData, Message, StatusUpdate
from edgerm_core.tasks import TaskState


def an_update(result: bytes | None = None) -> StatusUpdate:
    return StatusUpdate(TaskId(1), 1, 1, TaskState.FINISHED, "exited", result=result)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=30), st.integers(64, 200))
def test_frames_are_small_enough_few_and_in_order(sizes: list[int], max_bytes: int) -> None:
    messages: list[Message] = [LogData(n + 1, 0, b"x" * size) for n, size in enumerate(sizes) if size <= 50]
    made = frames(messages, max_bytes)
    assert all(len(frame) <= max_bytes for frame in made)
    assert [message for frame in made for message in decode_batch(frame)] == messages
    for first, second in itertools.pairwise(made):
        assert len(first) + len(second) > max_bytes // 2, "two that would have fitted into one"


def test_a_result_that_is_too_large_for_the_connection_is_dropped_and_said_so() -> None:
    (frame,) = frames([an_update(b"x" * 1000), Heartbeat()], 200)
    update, heartbeat = decode_batch(frame)
    assert isinstance(update, StatusUpdate)
    assert update.result is None
    assert "more than this connection carries" in update.message
    assert heartbeat == Heartbeat()


def test_anything_else_that_is_too_large_is_left_out() -> None:
    assert frames([LogData(1, 0, b"x" * 1000)], 200) == []


@pytest.mark.anyio
async def test_waiting_for_room_ends_when_there_is_some_or_the_connection_is_over(tmp_path: Path) -> None:
    def nothing(*_: object) -> None:
        pass

    sandboxes = Sandboxes(tmp_path, 4096)
    link = Link(SessionId(1), MemoryTransport(), "memory://nobody", sandboxes, nothing, nothing, nothing)
    for _ in range(3):
        link.send(Heartbeat())
    with anyio.fail_after(5):
        await link.wait_room(3)
    with anyio.move_on_after(0.01) as scope:
        await link.wait_room(2)
    assert scope.cancelled_caught
    async with anyio.create_task_group() as group:
        group.start_soon(link.wait_room, 2)
        await anyio.lowlevel.checkpoint()
        link.close("enough")
