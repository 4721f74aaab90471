"""A port's outbox: few frames, within the connection's limit, in order, and counted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.ids import SessionId
from edgerm_core.master import port as port_module
from edgerm_core.master.port import SessionPort
from tests.core.master.lines import Line

pytestmark = pytest.mark.anyio


def a_port(max_message_bytes: int = 1024) -> tuple[SessionPort, list[SessionPort]]:
    """Return a port, and where it says that something has changed."""
    told: list[SessionPort] = []
    return SessionPort(SessionId(1), Line(max_message_bytes=max_message_bytes), told.append), told


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(64, 200))
def test_frames_are_few_small_enough_and_in_order(sizes: list[int], max_bytes: int) -> None:
    port, _ = a_port(max_bytes)
    pieces = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    for piece in pieces:
        port.put(piece)
    frames: list[bytes] = []
    while port.outbox:
        frames.append(port.take_frame())
        assert port.outbox_bytes == sum(map(len, port.outbox))
    assert b"".join(frames) == b"".join(pieces)
    assert all(len(frame) <= max_bytes for frame in frames)
    for frame, after in itertools.pairwise(frames):
        assert len(frame) + len(after) > max_bytes // 2, "two that would have fitted into one"


def test_no_frame_holds_more_messages_than_a_peer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "MAX_BATCH_MESSAGES", 3)
    port, _ = a_port()
    for n in range(7):
        port.put(b"%d" % n)
    assert [port.take_frame() for _ in range(3)] == [b"012", b"345", b"6"]


def test_it_says_when_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "SESSION_OUTBOX_BYTES", 10)
    port, told = a_port()
    assert port.put(b"x" * 10)
    assert not port.put(b"x")
    assert told == [port, port]
    port.drop_waiting()
    assert (port.outbox, port.outbox_bytes) == ([], 0)


def test_the_first_reason_to_close_counts() -> None:
    port, told = a_port()
    port.close("first")
    port.close("second")
    assert port.closing == "first"
    assert told == [port]
