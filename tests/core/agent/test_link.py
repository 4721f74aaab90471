"""How messages are put into frames."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent.link import frames
from edgerm_core.codec import decode_batch
from edgerm_core.ids import TaskId
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
