"""Blobs on the agent's disk, by content: what is here, what is in use, what goes first.

<data_dir>/blobs/<sha-256 in hex>         whole and checked; read-only
<data_dir>/blobs/<sha-256 in hex>.part    the beginning of one; the transfer goes on behind it
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Final

from edgerm_core.ids import BlobId

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"([0-9a-f]{64})(\.part)?")


class BlobCache:
    """The directory, with an index in memory: looking a blob up costs no disk access.

    Parameters:
        directory: made if it is not there.
        max_bytes: of all whole blobs; the least recently used that nobody holds go first. Blobs that are
            in use stay, so the limit may be exceeded while they are.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._sizes: dict[BlobId, int] = {}
        self._held: Counter[BlobId] = Counter()
        self.total_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        found = [(path.stat(), path) for path in directory.iterdir() if _NAME.fullmatch(path.name)]
        for stat, path in sorted(found, key=lambda each: each[0].st_mtime):
            if path.suffix == ".part":
                # Counted nowhere: a handful at most, and the first to go when they are too much.
                if stat.st_size > max_bytes:
                    path.unlink()
                continue
            self._sizes[BlobId(bytes.fromhex(path.name))] = stat.st_size
            self.total_bytes += stat.st_size
        self._evict()

    def path(self, blob: BlobId) -> Path:
        """Return where the blob is, or would be."""
        return self.directory / blob.hex()

    def part_path(self, blob: BlobId) -> Path:
        """Return where the beginning of the blob is, or would be."""
        return self.directory / f"{blob.hex()}.part"

    def __contains__(self, blob: BlobId) -> bool:
        return blob in self._sizes

    def hold(self, blob: BlobId) -> None:
        """Keep the blob from being evicted, here or still to come. Undone by as many `let_go`."""
        self._held[blob] += 1
        if (size := self._sizes.pop(blob, None)) is not None:
            self._sizes[blob] = size  # The most recently used one stands last.

    def let_go(self, blob: BlobId) -> None:
        """Undo one `hold`."""
        self._held[blob] -= 1
        if self._held[blob] <= 0:
            del self._held[blob]
            if self.total_bytes > self.max_bytes:
                self._evict()

    def finish(self, blob: BlobId) -> bool:
        """Check the blob's `.part` and take it in; a wrong one is removed. Blocks while it reads.

        Returns whether it was right.

        Raises:
            OSError: if the disk refuses.
        """
        part = self.part_path(blob)
        digest = hashlib.sha256()
        with open(part, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        if digest.digest() != blob:
            part.unlink()
            return False
        part.chmod(0o444)
        part.replace(self.path(blob))
        return True

    def add(self, blob: BlobId) -> None:
        """Take a blob that `finish` put in place into the index.

        Raises:
            OSError: if it has gone again.
        """
        size = self.path(blob).stat().st_size
        self.total_bytes += size - self._sizes.pop(blob, 0)
        self._sizes[blob] = size
        self._evict()

    def _evict(self) -> None:
        # Looks at everything only where something has to go, which is seldom.
        for blob in list(self._sizes):
            if self.total_bytes <= self.max_bytes:
                return
            if blob not in self._held:
                self.total_bytes -= self._sizes.pop(blob)
                self.path(blob).unlink(missing_ok=True)
                log.debug("blob %s evicted", blob.hex()[:12])
