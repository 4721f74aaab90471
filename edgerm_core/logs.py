"""Bounded log rings on disk: what a task printed, as much of it as the ring holds.

A ring is a few files in one directory, named `stdout.<offset of its first byte>`. The writer fills
a file to half the ring's size, then starts the next and removes all but the last two, so the ring
holds between half and all of its size and plain `cat` can read it. Offsets count from the task's
first byte and never start again, so a reader that comes late knows how much it missed.

One writer; any number of readers, in the same or in other processes. Only the standard library is
needed, since a process that outlives the agent writes them too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Final

STDOUT: Final = "stdout"
STDERR: Final = "stderr"


def _segments(directory: Path, stream: str) -> list[tuple[int, Path]]:
    found: list[tuple[int, Path]] = []
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        base, _, digits = name.rpartition(".")
        if base == stream and digits.isdigit():
            found.append((int(digits), directory / name))
    return sorted(found)


class LogWriter:
    """Appends to the ring of one stream. Makes the directory with the first byte.

    Parameters:
        directory: the task's log directory.
        stream: `stdout` or `stderr`.
        limit_bytes: size of the ring.
    """

    def __init__(self, directory: Path, stream: str, limit_bytes: int) -> None:
        assert limit_bytes >= 2
        self._directory = directory
        self._stream = stream
        self._segment_bytes = limit_bytes // 2
        self._file: IO[bytes] | None = None
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
            self._file.write(piece)
            self._size += len(piece)
            view = view[len(piece) :]

    def _next_segment(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        existing = _segments(self._directory, self._stream)
        if self._file is None and existing:
            # Taken up again by another process: go on where the last writer stopped.
            self._start, path = existing[-1]
            self._size = path.stat().st_size
            self._file = open(path, "ab", buffering=0)
            if self._size < self._segment_bytes:
                return
        self.close()
        self._start += self._size
        self._size = 0
        path = self._directory / f"{self._stream}.{self._start:020d}"
        self._file = open(path, "ab", buffering=0)
        for _, old in _segments(self._directory, self._stream)[:-2]:
            old.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file. Idempotent; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LogReader:
    """Reads the ring of one stream while it is written or long after."""

    def __init__(self, directory: Path, stream: str) -> None:
        self._directory = directory
        self._stream = stream

    def bounds(self) -> tuple[int, int]:
        """Return the offsets of the first byte kept and behind the last one written."""
        segments = _segments(self._directory, self._stream)
        if not segments:
            return 0, 0
        last_start, last_path = segments[-1]
        try:
            return segments[0][0], last_start + last_path.stat().st_size
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
