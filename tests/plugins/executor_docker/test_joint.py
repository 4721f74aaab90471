"""Where a log goes on from a ring: never a byte twice, never one missed that the engine has kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from edgerm_executor_docker.frames import Message
from edgerm_executor_docker.joint import TAIL_BYTES, find_joint, replayed, since_parameter, unix_time
from hypothesis import given, settings
from hypothesis import strategies as st

START = 1_700_000_000


def at(second: float) -> str:
    return datetime.fromtimestamp(START + second, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def entries(*texts: bytes, first: int = 0) -> list[Message]:
    """One entry a second."""
    return [Message(at(first + index), "stdout", text) for index, text in enumerate(texts)]


def joint(log: list[Message], seen: bytes, written_at: float = 1e6, file_bytes: int = 1 << 20) -> int:
    return find_joint(log, seen[-TAIL_BYTES:], len(seen), START + written_at, file_bytes)


lines = st.lists(st.sampled_from([b"tick\n", b"tock\n", b"a longer line\n", b"\n"]), max_size=30)


@given(lines, st.data())
@settings(max_examples=200, deadline=None)
def test_while_the_engine_has_all_bytes_are_counted(texts: list[bytes], data: st.DataObject) -> None:
    # However alike the lines are, and wherever the agent died.
    whole = b"".join(texts)
    seen = data.draw(st.integers(0, len(whole)))
    assert joint(entries(*texts), whole[:seen]) == seen


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_lines_that_differ_are_found_again_after_the_engine_dropped_some(first: int, last: int) -> None:
    texts = [b"line %d\n" % number for number in range(41)]
    kept = entries(*texts[first:], first=first)
    seen = b"".join(texts[:last])
    found = joint(kept, seen, written_at=last - 1, file_bytes=1)
    rest = b"".join(message.data for message in kept)[found:]
    assert rest == b"".join(texts[max(first, last) :])


@given(lines, st.data())
@settings(max_examples=200, deadline=None)
def test_lines_that_the_engine_has_not_noted_yet_are_counted_too(
    texts: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(texts)
    seen = data.draw(st.integers(0, len(whole)))
    noted = whole[:seen].count(b"\n")
    assert joint(entries(*texts[:noted]), whole[:seen]) == seen


def test_like_lines_are_told_apart_by_their_time() -> None:
    kept = entries(*[b"tick\n"] * 10, first=100)
    # The ring was written last when the entry of second 104 came.
    assert joint(kept, b"tick\n" * 105, written_at=104.01, file_bytes=1) == 5 * 5


@pytest.mark.timeout(60)
def test_output_made_to_be_slow_to_search_keeps_nobody_waiting() -> None:
    # Compared place by place from the end, this takes minutes, and a task chooses what it prints.
    kept = entries(*[b"a" * 16_384] * 1024)
    assert joint(kept, b"a\n" + b"a" * (TAIL_BYTES - 2), file_bytes=1) == TAIL_BYTES - 2


def test_clock_that_was_set_back_doubles_nothing() -> None:
    kept = [*entries(b"line 1\n", b"line 2\n", first=100), *entries(b"line 3\n", b"line 4\n", first=10)]
    assert joint(kept, b"line 0\nline 1\nline 2\nline 3\n", written_at=10.01, file_bytes=1) == 21


def test_entries_that_come_again_since_the_last_one() -> None:
    assert replayed(entries(b"a", b"b")) == {at(1): 1}
    assert replayed([*entries(b"a", b"b"), *entries(b"c", first=1)]) == {at(1): 2}
    # The clock was set back by 99 s.
    assert replayed([*entries(b"a", b"b", first=99), *entries(b"c", first=0)]) == {
        at(99): 1,
        at(100): 1,
        at(0): 1,
    }
    assert replayed([]) == {}


def test_everything_is_new_after_a_gap() -> None:
    kept = entries(b"new 1\n", b"new 2\n", first=100)
    assert joint(kept, b"old 1\nold 2\n", written_at=3, file_bytes=1) == 0


def test_ring_may_have_the_beginning_of_a_line_that_the_log_has_not() -> None:
    assert joint(entries(b"a\n"), b"a\nunfin") == 7
    assert joint(entries(), b"unfin") == 5
    assert joint(entries(b"b\n", first=5), b"a\nb\nunfin", written_at=5, file_bytes=1) == 2 + 5


def test_ring_without_anything_of_this_run() -> None:
    assert joint(entries(b"a\n"), b"") == 0


def test_times_of_engines() -> None:
    assert unix_time("2023-11-14T22:13:20Z") == START
    assert unix_time("2023-11-14T22:13:20.5Z") == START + 0.5
    assert unix_time("2023-11-14T23:13:20.123456789+01:00") == pytest.approx(START + 0.123456)
    for none in ("", "0001-01-01T00:00:00Z", "yesterday"):
        assert unix_time(none) == 0.0


def test_since_keeps_the_nanoseconds() -> None:
    assert since_parameter("2023-11-14T22:13:20.123456789Z") == f"{START}.123456789"
    assert since_parameter("2023-11-14T22:13:20.5+00:00") == f"{START}.500000000"
    assert since_parameter("2023-11-14T22:13:20Z") == f"{START}.000000000"
