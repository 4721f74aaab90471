"""Output in frames, whatever the pieces it comes in."""

from __future__ import annotations

import pytest
from edgerm_executor_docker.frames import HEADER, FrameDecoder, Message, NotFrames, read_message
from hypothesis import given, settings
from hypothesis import strategies as st


def frame(stream: int, data: bytes) -> bytes:
    return HEADER.pack(stream, len(data)) + data


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20)), max_size=10),
    st.lists(st.integers(1, 30), min_size=1, max_size=50),
)
@settings(max_examples=150, deadline=None)
def test_frames_come_out_whole_and_in_order(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    raw = b"".join(frame(*each) for each in frames)
    decoder = FrameDecoder()
    found: list[tuple[str, bytes]] = []
    index = 0
    while raw:
        size = sizes[index % len(sizes)]
        index += 1
        found += decoder.feed(raw[:size])
        raw = raw[size:]
    names = {1: "stdout", 2: "stderr"}
    assert found == [(names[stream], data) for stream, data in frames]


@pytest.mark.parametrize("raw", [b"plain text!", HEADER.pack(3, 1) + b"x", HEADER.pack(1, 1 << 31)])
def test_what_is_no_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(NotFrames):
        list(FrameDecoder().feed(raw))


def test_log_entry_has_its_time_in_front() -> None:
    entry = read_message("stdout", b"2026-01-02T03:04:05.123456789Z hello world\n")
    assert entry == Message("2026-01-02T03:04:05.123456789Z", "stdout", b"hello world\n")
    for wrong in (b"", b"hello", b"hello world"):
        with pytest.raises(NotFrames):
            read_message("stdout", wrong)
