"""Where an engine's log goes on from what is in a ring already. No I/O.

While an agent lives it copies a container's output as it comes. When it comes back it reads what was
printed meanwhile from the engine's log, of which the engine has kept the latest part only, and of which
the beginning is in the ring. Counting bytes says where to go on, as long as the engine has dropped
nothing; otherwise the end of the ring is looked for in the log, no later than the ring was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from edgerm_executor_docker.frames import Message

TAIL_BYTES: Final = 20 << 10
"""Of the ring's end, to look for in the log: more than the 16 KiB an engine holds of an unfinished line."""

ENTRY_BYTES: Final = 200
"""An entry takes at most this much in an engine's file besides its text (time, stream, part of a line)."""

CLOCK_SLACK_S: Final = 0.1
"""Engines note an entry's time beside passing it on, and file systems keep times in ticks."""


def find_joint(
    log: Sequence[Message], tail: bytes, written: int, written_at: float, file_bytes: int
) -> int:
    """Return how many bytes of one stream's log, from its beginning, are in the ring already.

    More than the log has, if the ring holds the beginning of a line that the engine has not noted yet.

    Parameters:
        log: all the engine has kept of the stream, oldest first.
        tail: the end of what this run has put into the ring, at most `TAIL_BYTES`.
        written: how many bytes this run has put into the ring altogether.
        written_at: when the last of them was written, Unix time in seconds.
        file_bytes: size at which the engine begins a new file; it keeps one full file at least.
    """
    if not written:
        return 0
    text = b"".join(message.data for message in log)
    unfinished = len(tail) - (tail.rfind(b"\n") + 1)
    complete = sum(len(message.data) + ENTRY_BYTES for message in log) < file_bytes
    if complete and len(text) >= written - unfinished and _agree(text, tail, written):
        return written
    limit = end = 0
    for message in log:
        end += len(message.data)
        # The last one that is not later: where a clock was set back, later ones come before it.
        if unix_time(message.at) <= written_at + CLOCK_SLACK_S:
            limit = end
    found = text[:limit][::-1].find(tail[::-1])  # Unlike `rfind`, linear however alike the lines are.
    if found >= 0:
        return limit - found
    finished = tail[: len(tail) - unfinished]
    if unfinished and text and limit == len(text) and (text.endswith(finished) or finished.endswith(text)):
        return len(text) + unfinished
    for overlap in range(min(limit, len(tail) - 1), 0, -1):
        if tail.endswith(text[:overlap]):
            return overlap
    return 0


def _agree(text: bytes, tail: bytes, written: int) -> bool:
    """Return whether a log from byte 0 on and a ring's tail are the same where both are."""
    start = max(0, written - len(tail))
    end = min(len(text), written)
    if end <= start:
        return end == start
    return text[start:end] == tail[len(tail) - (written - start) :][: end - start]


def unix_time(text: str) -> float:
    """Return a time in RFC 3339 as Unix time in seconds; 0 for what is none, or Go's zero time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    if at.year < 1970:
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def replayed(log: Sequence[Message]) -> Counter[str]:
    """Return the times of those entries that come again if the log is asked for since its last one.

    More than the last one, where a clock was set back: engines compare each entry's time by itself.
    """
    if not log:
        return Counter()
    last = _exact(log[-1].at)
    return Counter(message.at for message in log if _exact(message.at) >= last)


def _exact(text: str) -> tuple[int, str]:
    seconds, _, nanoseconds = since_parameter(text).partition(".")
    return int(seconds), nanoseconds


def since_parameter(text: str) -> str:
    """Return the time of an entry as the engine's `since` wants it: Unix seconds with nanoseconds."""
    fraction = text.partition(".")[2]
    digits = ""
    for character in fraction:
        if not character.isdigit():
            break
        digits += character
    return f"{int(unix_time(text))}.{digits[:9].ljust(9, '0')}"
