"""Uploading blobs: modules and files, by content, resumed where the master already has a part."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anyio.to_thread

from edgerm_core.client.link import Link
from edgerm_core.client.mailbox import Mailbox
from edgerm_core.client.session import Session
from edgerm_core.errors import BlobError, ConnectionClosed, ProtocolError
from edgerm_core.ids import BlobId, blob_id
from edgerm_core.limits import BLOB_CHUNK_BYTES, BLOB_WINDOW_CHUNKS, MAX_BLOB_BYTES
from edgerm_core.messages import BlobData, BlobOffer, BlobState, Failed

HASH_CHUNK_BYTES = 1 << 20
"""Read at once from a file that is being hashed."""

BLOB_DATA_OVERHEAD_BYTES = 128
"""More than everything in a BlobData besides its data."""

UPLOAD_ATTEMPTS = 3
"""How often an upload that the master found damaged is tried."""


class BlobSource:
    """Content that can be uploaded. Make one with `of`.

    Attributes:
        id: SHA-256 of the content.
        size: in bytes.
    """

    def __init__(self, content: bytes | Path, id: BlobId, size: int) -> None:
        self.id = id
        self.size = size
        self._content = content

    @classmethod
    def of(cls, content: bytes | str | Path) -> BlobSource:
        """Return a source for bytes, or for the file at a path. Reads the whole file once.

        Raises:
            BlobError: if the file cannot be read, or the content is larger than `MAX_BLOB_BYTES`.
        """
        if isinstance(content, bytes):
            source = cls(content, blob_id(content), len(content))
        else:
            path = Path(content)
            digest = hashlib.sha256()
            size = 0
            try:
                with open(path, "rb") as file:
                    while piece := file.read(HASH_CHUNK_BYTES):
                        digest.update(piece)
                        size += len(piece)
            except OSError as error:
                raise BlobError(f"{path} cannot be read: {error.strerror}") from error
            source = cls(path, BlobId(digest.digest()), size)
        if source.size > MAX_BLOB_BYTES:
            raise BlobError(f"{source} has {source.size} bytes; the limit is {MAX_BLOB_BYTES}")
        return source

    def __str__(self) -> str:
        return str(self._content) if isinstance(self._content, Path) else f"blob {self.id.hex()[:12]}"

    async def read(self, offset: int, length: int) -> bytes:
        """Return a piece of the content.

        Raises:
            BlobError: if the file is gone or shorter than it was.
        """
        if isinstance(self._content, bytes):
            return self._content[offset : offset + length]
        path = self._content
        try:
            data = await anyio.to_thread.run_sync(_read_file, path, offset, length)
        except OSError as error:
            raise BlobError(f"{path} cannot be read: {error.strerror}") from error
        if not data:
            raise BlobError(f"{path} became shorter while it was uploaded; upload it again")
        return data


def _read_file(path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


async def upload(session: Session, source: BlobSource) -> None:
    """Bring a blob to the master, as far as it lacks it. Idempotent; a cancelled upload is resumed.

    Goes on where it was when the connection is lost.

    Raises:
        BlobError: if the master does not take it (too large, damaged), or the file changed meanwhile.
        TransportError: if a connected master does not answer.
        EdgermError: if the session is over for good.
    """
    damaged = 0
    while True:
        link = await session.link()
        try:
            with link.mailbox() as (box, [request_id]):
                await _upload_over(link, box, request_id, source)
                return
        except ConnectionClosed:
            continue
        except _Damaged as error:
            # Also what an earlier uploader left behind can be at fault; the master threw it away.
            damaged += 1
            if damaged >= UPLOAD_ATTEMPTS:
                raise BlobError(f"{source} could not be uploaded: {error}") from error


class _Damaged(Exception):
    """The master did not get what was sent."""


async def _upload_over(link: Link, box: Mailbox, request_id: int, source: BlobSource) -> None:
    """Upload on one connection: pieces in a window, each answered with how much has arrived."""
    chunk_bytes = min(BLOB_CHUNK_BYTES, link.max_message_bytes - BLOB_DATA_OVERHEAD_BYTES)
    await link.send(BlobOffer(request_id, source.id, source.size))
    answer = await _answer(link, box, source)
    if isinstance(answer, Failed):
        raise BlobError(f"{source}: {answer.message}")
    have = sent = begun = answer.have
    unanswered = 0
    while have < source.size:
        if unanswered == 0 and sent > have:
            # The pieces were left out, since they did not begin where the master's part ends.
            if have <= begun:
                raise _Damaged("the master does not take its pieces")
            sent = begun = have
        while sent < source.size and unanswered < BLOB_WINDOW_CHUNKS:
            data = await source.read(sent, chunk_bytes)
            await link.send(BlobData(request_id, source.id, sent, source.size, data))
            sent += len(data)
            unanswered += 1
        answer = await _answer(link, box, source)
        if isinstance(answer, Failed):
            raise _Damaged(answer.message)
        unanswered -= 1
        have = answer.have
        sent = max(sent, have)


async def _answer(link: Link, box: Mailbox, source: BlobSource) -> BlobState | Failed:
    answer = await link.answer(box, f"the upload of {source}")
    if not isinstance(answer, BlobState | Failed):
        raise ProtocolError(
            f"the master answered an upload with {type(answer).__name__}, expected BlobState"
        )
    return answer
