"""The agent's records on disk: an append-only file of CBOR items, and who may write it.

    file:   8 bytes magic, then frames
    frame:  4 bytes length, 4 bytes CRC-32 of the payload (both little-endian), payload

Appending is one `write`, so what is appended survives the death of the process; `sync` makes it survive
a power cut. A frame that is cut short or does not match its sum ends the journal: the tail is cut off,
since what follows cannot be trusted. When the file has grown, it is written anew with only what counts.

A full disk does not stop the agent, since any task could fill it: what cannot be written is kept in
memory, and written with the next append that succeeds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Final

from edgerm_core.errors import StoreError, StoreLocked
from edgerm_core.limits import JOURNAL_COMPACT_BYTES

log = logging.getLogger(__name__)

MAGIC: Final = b"edgermJ1"
_HEAD: Final = struct.Struct("<II")

MAX_FRAME_BYTES: Final = 4 << 20
"""A longer length can only be damage: a record holds one order and at most three status updates."""


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DirectoryLock:
    """Owns a data directory until closed or until the process dies.

    Raises:
        StoreLocked: if another process owns it.
        StoreError: if it cannot be made or written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = open(directory / "agent.lock", "a", encoding="ascii")
        except OSError as error:
            raise StoreError(f"data directory {directory} cannot be used: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StoreLocked(
                f"another agent uses {directory}: stop it, or give this one its own agent.data_dir"
            ) from None

    def close(self) -> None:
        """Give the directory up. Idempotent."""
        self._file.close()


class Journal:
    """The file. Used by one process at a time, under `DirectoryLock`.

    Parameters:
        path: of the file; made if it is not there.

    Raises:
        StoreError: if it cannot be opened, or is no journal of this version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._backlog = bytearray()
        self._since_rewrite: bytearray | None = None
        self._failing = False
        self.dirty = False
        #: The file has another entry in its directory than the disk knows.
        self._moved = True
        try:
            self._file = open(path, "a+b", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
            if not self._size:
                self._file.write(MAGIC)
                self._size = len(MAGIC)
            self._compact_at = max(JOURNAL_COMPACT_BYTES, 2 * self._size)
        except OSError as error:
            raise StoreError(f"journal {path} cannot be opened: {error}") from error

    @property
    def behind(self) -> bool:
        """Whether some of what was appended is not in the file yet."""
        return bool(self._backlog)

    def wants_rewrite(self) -> bool:
        """Whether the file has grown enough to be written anew."""
        return self._since_rewrite is None and self._size + len(self._backlog) > self._compact_at

    def read(self) -> list[bytes]:
        """Return all payloads in order; a damaged tail is cut off. Call once, before appending.

        Raises:
            StoreError: if the file cannot be read, or is no journal of this version.
        """
        try:
            data = self._path.read_bytes()
        except OSError as error:
            raise StoreError(f"journal {self._path} cannot be read: {error}") from error
        if data[: len(MAGIC)] != MAGIC:
            raise StoreError(
                f"{self._path} is not a journal of this version: use the edgerm version that wrote it, "
                f"or move it away (running tasks will then be lost)"
            )
        payloads: list[bytes] = []
        offset = len(MAGIC)
        while offset + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, offset)
            payload = data[offset + _HEAD.size : offset + _HEAD.size + length]
            if length > MAX_FRAME_BYTES or len(payload) < length or zlib.crc32(payload) != checksum:
                break
            payloads.append(payload)
            offset += _HEAD.size + length
        if offset < len(data):
            log.warning(
                "journal %s: the last %d bytes are damaged and cut off", self._path, len(data) - offset
            )
            os.truncate(self._path, offset)
            self._size = offset
        return payloads

    def append(self, payloads: Iterable[bytes]) -> None:
        """Add records. Never raises: where the disk refuses, they are kept for the next call."""
        for payload in payloads:
            self._backlog += _HEAD.pack(len(payload), zlib.crc32(payload))
            self._backlog += payload
            if self._since_rewrite is not None:
                self._since_rewrite += self._backlog[-_HEAD.size - len(payload) :]
        if self._backlog:
            self._write_backlog()

    def _write_backlog(self) -> None:
        try:
            written = self._file.write(self._backlog)
            if written < len(self._backlog):
                # Half a frame must not stand before later ones.
                os.ftruncate(self._file.fileno(), self._size)
                raise OSError("the disk is full")
        except OSError as error:
            if not self._failing:
                log.error("journal %s cannot be written: %s; free some space", self._path, error)
            self._failing = True
            return
        if self._failing:
            log.warning("journal %s is written again", self._path)
        self._failing = False
        self._size += len(self._backlog)
        self._backlog.clear()
        self.dirty = True

    def sync(self) -> bool:
        """Make what is in the file survive a power cut; return whether it does now.

        Blocks: call it in a worker thread.
        """
        self.dirty = False
        try:
            os.fdatasync(self._file.fileno())
            if self._moved:
                # Without it a power cut may bring back the file that a rewrite has replaced.
                _sync_directory(self._path.parent)
                self._moved = False
        except OSError as error:
            log.error("journal %s cannot be synced: %s", self._path, error)
            return False
        return True

    def begin_rewrite(self, payloads: Iterable[bytes]) -> Callable[[], None]:
        """Begin to write the file anew with only `payloads`, which must say what all appends so far say.

        Returns what does the slow part, to be called in a worker thread and followed by `end_rewrite`.
        Appending goes on meanwhile.
        """
        content = bytearray(MAGIC)
        for payload in payloads:
            content += _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        self._since_rewrite = bytearray()
        temporary = self._path.with_suffix(".new")

        def write() -> None:
            with open(temporary, "wb", buffering=0) as file:
                file.write(content)
                os.fsync(file.fileno())

        return write

    def end_rewrite(self, problem: Exception | None = None) -> None:
        """Put the new file in place, with what was appended since; or, after a problem, leave it."""
        since, self._since_rewrite = self._since_rewrite, None
        assert since is not None
        temporary = self._path.with_suffix(".new")
        try:
            if problem is not None:
                raise problem
            file = open(temporary, "a+b", buffering=0)
            if since and file.write(since) < len(since):
                file.close()
                raise OSError("the disk is full")
            temporary.replace(self._path)
        except OSError as error:
            log.error("journal %s cannot be compacted: %s", self._path, error)
            temporary.unlink(missing_ok=True)
            self._compact_at *= 2
            return
        self._file.close()
        self._file = file
        self._moved = True
        self._backlog.clear()
        self._size = os.fstat(file.fileno()).st_size
        self._compact_at = max(JOURNAL_COMPACT_BYTES, 2 * self._size)
        self.dirty = True

    def close(self) -> None:
        """Sync and close. Idempotent."""
        if not self._file.closed:
            self.sync()
            self._file.close()
