"""Blobs on the master's disk: uploaded in pieces, resumable, checked, and removed when room is needed.

A blob is a file named by its SHA-256 in `<data_dir>/blobs`; one that is still arriving ends in
`.part`. Its bytes never pass through the state machine, which only hears that it is there.
Synchronous; the runner calls it in a worker thread, one call at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Set
from pathlib import Path

from edgerm_core.errors import BlobError
from edgerm_core.ids import BlobId

_READ_BYTES = 1 << 20


class BlobStore:
    """The files of one data directory.

    Parameters:
        directory: made if it is missing.
        max_blob_bytes: largest blob taken.
        store_bytes: all of them; `make_room` keeps to it.
    """

    def __init__(self, directory: Path, max_blob_bytes: int, store_bytes: int) -> None:
        self._directory = directory
        self._max_blob_bytes = max_blob_bytes
        self._store_bytes = store_bytes
        directory.mkdir(parents=True, exist_ok=True)

    def scan(self) -> dict[BlobId, int]:
        """Return the complete blobs and their sizes."""
        found: dict[BlobId, int] = {}
        for path in self._directory.iterdir():
            if path.suffix == "" and len(path.name) == 64:
                try:
                    found[BlobId(bytes.fromhex(path.name))] = path.stat().st_size
                except ValueError:
                    continue
        return found

    def have(self, blob: BlobId, size: int) -> int:
        """Return how many bytes of the blob are here already.

        Raises:
            BlobError: if it is larger than allowed, or `size` is not that of the blob we have; if all
            pieces are here and their content is wrong (they are thrown away), or the disk refuses.
        """
        if not 0 <= size <= self._max_blob_bytes:
            limit_mib = self._max_blob_bytes >> 20
            raise BlobError(
                f"a blob of {size} bytes is larger than the {limit_mib} MiB this master takes "
                f"(master.max_blob_bytes)"
            )
        path = self._path(blob)
        if path.exists():
            if path.stat().st_size != size:
                raise BlobError(f"blob {blob.hex()[:12]} has {path.stat().st_size} bytes, not {size}")
            with contextlib.suppress(OSError):  # Only the order of removal depends on it.
                path.touch()
            return size
        part = self._part(blob)
        have = part.stat().st_size if part.exists() else 0
        if have > size:  # Somebody announced another size: these cannot be its bytes.
            part.unlink()
            have = 0
        # All of it but unchecked: empty, or the master was killed before it could look.
        return self._append(blob, size, b"") if have == size else have

    def read(self, blob: BlobId, offset: int, length: int) -> tuple[int, bytes]:
        """Return (size of the blob, the piece asked for).

        Raises:
            BlobError: if it is not here.
        """
        try:
            with open(self._path(blob), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if offset == 0:
                    with contextlib.suppress(OSError):
                        os.utime(file.fileno())
                file.seek(max(0, offset))
                return size, file.read(max(0, length))
        except OSError as error:
            raise BlobError(f"blob {blob.hex()[:12]} is not here: {error.strerror}") from error

    def write(self, blob: BlobId, offset: int, size: int, data: bytes) -> int:
        """Append a piece of an upload and return how many bytes are here now.

        A piece that does not begin where the last one ended is left out: the answer tells the sender
        where to go on. With the last piece the content is checked.

        Raises:
            BlobError: if the content does not have the hash it claims (the pieces are thrown away),
                or the disk refuses.
        """
        have = self.have(blob, size)
        if have == size or offset != have:
            return have
        if offset + len(data) > size:
            raise BlobError(f"blob {blob.hex()[:12]}: more data than the {size} bytes announced")
        return self._append(blob, size, data)

    def _append(self, blob: BlobId, size: int, data: bytes) -> int:
        try:
            with open(self._part(blob), "ab") as file:
                file.write(data)
                have = file.tell()
                if have == size:
                    file.flush()
                    os.fsync(file.fileno())
            if have == size:
                self._finish(blob)
        except OSError as error:
            raise BlobError(f"blob {blob.hex()[:12]} cannot be stored: {error.strerror}") from error
        return have

    def make_room(self, wanted_bytes: int, in_use: Set[BlobId]) -> list[BlobId]:
        """Remove the least recently used blobs that nobody needs until `wanted_bytes` more fit.

        Uploads that never came to their end go the same way. Returns the blobs removed. What is in
        use stays, even beyond the limit.
        """
        sizes = self.scan()
        files = {self._path(blob): (blob, size) for blob, size in sizes.items() if blob not in in_use}
        parts = {path: path.stat().st_size for path in self._directory.glob("*.part")}
        excess = sum(sizes.values()) + sum(parts.values()) + wanted_bytes - self._store_bytes
        removed: list[BlobId] = []
        if excess <= 0:
            return removed
        for path in sorted([*files, *parts], key=lambda path: path.stat().st_mtime_ns):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            if path in files:
                blob, size = files[path]
                removed.append(blob)
                excess -= size
            else:
                excess -= parts[path]
        return removed

    def _finish(self, blob: BlobId) -> None:
        part = self._part(blob)
        digest = hashlib.sha256()
        with open(part, "rb") as file:
            while piece := file.read(_READ_BYTES):
                digest.update(piece)
        if digest.digest() != blob:
            part.unlink()
            found = digest.hexdigest()[:12]
            raise BlobError(f"the upload has the hash {found}, not {blob.hex()[:12]}: send it again")
        part.replace(self._path(blob))

    def _path(self, blob: BlobId) -> Path:
        return self._directory / blob.hex()

    def _part(self, blob: BlobId) -> Path:
        return self._directory / f"{blob.hex()}.part"
