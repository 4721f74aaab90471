"""Bounded log rings on disk: what a task printed, as much of it as the ring holds.

A ring is a few files in one directory, named `stdout.<offset of its first byte>`. The writer fills
a file to half the ring's size, then starts the next and removes all but the last two, so the ring
holds between half and all of its size and plain `cat` can read it. Offsets count from the task's
first byte and never start again, so a reader that comes late knows how much it missed.

One writer; any number of readers, in the same or in other processes. Only `os` and `io` are imported
when the file runs: a small process that outlives the agent writes the rings too, and on a
gateway every megabyte that `pathlib` and `typing` would cost it counts.
"""

# ruff: noqa: PTH103, PTH108, PTH116, PTH118, PTH208
from __future__ import annotations

import io
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

STDOUT: Final = "stdout"
STDERR: Final = "stderr"


def _segments(directory: str, stream: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        base, _, digits = name.rpartition(".")
        if base == stream and digits.isdigit():
            found.append((int(digits), os.path.join(directory, name)))
    return sorted(found)


class LogWriter:
    """Appends to the ring of one stream. Makes the directory with the first byte.

    Parameters:
        directory: the task's log directory.
        stream: `stdout` or `stderr`.
        limit_bytes: size of the ring.
    """

    def __init__(self, directory: str | os.PathLike[str], stream: str, limit_bytes: int) -> None:
        assert limit_bytes >= 2
        self._directory = os.fspath(directory)
        self._stream = stream
        self._segment_bytes = limit_bytes // 2
        self._file: io.FileIO | None = None
        self._start = 0
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append; the oldest bytes go when the ring is full.

        Raises:
            OSError: if the disk refuses; what was written before stays readable.
        """
        view = memoryview(data)
        while view:
            if self._file is None or self._size >= self._segment_bytes:
                self._next_segment()
            assert self._file is not None
            piece = view[: self._segment_bytes - self._size]
            written = self._file.write(piece)  # Fewer than asked for where the disk fills up.
            self._size += written
            view = view[written:]

    def _next_segment(self) -> None:
        os.makedirs(self._directory, exist_ok=True)
        existing = _segments(self._directory, self._stream)
        if self._file is None and existing:
            # Taken up again by another process: go on where the last writer stopped.
            self._start, path = existing[-1]
            self._size = os.stat(path).st_size
            self._file = io.FileIO(path, "ab")
            if self._size < self._segment_bytes:
                return
        self.close()
        self._start += self._size
        self._size = 0
        path = os.path.join(self._directory, f"{self._stream}.{self._start:020d}")
        self._file = io.FileIO(path, "ab")
        for _, old in _segments(self._directory, self._stream)[:-2]:
            try:
                os.unlink(old)
            except FileNotFoundError:
                pass

    def close(self) -> None:
        """Close the file. Idempotent; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LogReader:
    """Reads the ring of one stream while it is written or long after."""

    def __init__(self, directory: str | os.PathLike[str], stream: str) -> None:
        self._directory = os.fspath(directory)
        self._stream = stream

    def bounds(self) -> tuple[int, int]:
        """Return the offsets of the first byte kept and behind the last one written."""
        segments = _segments(self._directory, self._stream)
        if not segments:
            return 0, 0
        last_start, last_path = segments[-1]
        try:
            return segments[0][0], last_start + os.stat(last_path).st_size
        except FileNotFoundError:
            return last_start, last_start

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        """Return (where the data starts, data), at most `length` bytes.

        The start is later than `offset` where the ring has dropped what was there. Empty data: nothing
        there (yet).
        """
        for start, path in _segments(self._directory, self._stream):
            try:
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    if offset >= start + size:
                        continue
                    begin = max(offset, start)
                    file.seek(begin - start)
                    return begin, file.read(length)
            except FileNotFoundError:
                continue  # The writer removed it between the listing and the opening.
        return max(offset, self.bounds()[0]), b""
