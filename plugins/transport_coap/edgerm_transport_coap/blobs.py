"""`GET /b/<session>/<blob>`: blocks of a blob, read through the session's own connection.

The master knows nothing of it: it receives a BlobGet as if the device had sent one, and what it answers
is taken out of what it sends. So whatever stands behind a listener need not know either.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.codec import decode_batch, encode
from edgerm_core.ids import BlobId
from edgerm_core.messages import BlobData, BlobGet, Failed, Message
from edgerm_transport_coap.blocks import Block, respond_in_blocks
from edgerm_transport_coap.config import (
    BLOB_READ_AHEAD_BYTES,
    BLOB_REQUESTS,
    BLOB_WINDOWS,
    KNOWN_BLOBS,
    RETRY_LATER_S,
)
from edgerm_transport_coap.message import (
    BAD_REQUEST,
    CONTENT,
    CONTENT_FORMAT,
    ETAG,
    MAX_AGE,
    NOT_FOUND,
    SIZE2,
    UNAVAILABLE,
    VALID,
    Options,
    uint,
)
from edgerm_transport_coap.request import Request

OCTETS: Final = 42
"""Content format application/octet-stream."""

FIRST_REQUEST_ID: Final = 1 << 31
"""Of the requests made here; devices count from 1."""

ETAG_BYTES: Final = 8
SHORT_NAME: Final = 8
FULL_NAME: Final = 43
"""Characters of a SHA-256 in base64url."""


class Window(msgspec.Struct):
    """A piece of a blob.

    Attributes:
        offset: where it starts.
        size: of the whole blob.
    """

    blob: bytes
    offset: int
    size: int
    data: bytes

    def covers(self, blob: bytes, want: Block) -> bool:
        """Return whether all of the wanted block is here, or is known not to exist."""
        if blob != self.blob:
            return False
        end = min(want.offset + want.size, self.size)
        return want.offset >= self.size or (
            self.offset <= want.offset and end <= self.offset + len(self.data)
        )


class Windows:
    """The latest piece of each reader; the least recently used go first."""

    def __init__(self) -> None:
        self._windows: collections.OrderedDict[BlobReader, Window] = collections.OrderedDict()

    def get(self, reader: BlobReader) -> Window | None:
        """Return the reader's piece, if it is still here."""
        window = self._windows.get(reader)
        if window is not None:
            self._windows.move_to_end(reader)
        return window

    def put(self, reader: BlobReader, window: Window | None) -> None:
        """Keep a piece for the reader, or forget it."""
        self._windows.pop(reader, None)
        if window is not None:
            self._windows[reader] = window
            if len(self._windows) > BLOB_WINDOWS:
                self._windows.popitem(last=False)


class BlobReader:
    """Reads blobs for one session.

    Parameters:
        inject: gives the master a frame as if the device had sent it.
        windows: where pieces are kept.
    """

    def __init__(self, inject: Callable[[bytes], None], windows: Windows) -> None:
        self._inject = inject
        self._windows = windows
        self._known: dict[str, bytes] = {}
        self._next_id = FIRST_REQUEST_ID
        #: The id of the BlobGet under way.
        self._asked: int | None = None
        self._queue: list[tuple[Request, bytes, Block]] = []

    @property
    def asking(self) -> bool:
        """Whether what the master sends may hold an answer."""
        return self._asked is not None

    def read(self, request: Request, name: str, want: Block) -> None:
        """Answer with a block of the blob of that name, now or when the master has sent it."""
        blob = self._resolve(name)
        if blob is None:
            request.respond(BAD_REQUEST if len(name) not in (SHORT_NAME, FULL_NAME) else NOT_FOUND)
        elif request.message.option(ETAG) == blob[:ETAG_BYTES]:
            request.respond(VALID, [(ETAG, blob[:ETAG_BYTES])])  # RFC 7252, section 5.10.6.2.
        elif len(self._queue) >= BLOB_REQUESTS:
            request.respond(UNAVAILABLE, [(MAX_AGE, uint(RETRY_LATER_S))])
        else:
            self._queue.append((request, blob, want))
            if len(self._queue) == 1:
                self._work()

    def intercept(self, frame: bytes) -> bytes:
        """Return the frame without the answer to what was asked here."""
        kept: list[Message] = []
        for message in decode_batch(frame):
            if isinstance(message, BlobData | Failed) and message.request_id == self._asked:
                self._asked = None
                self._take(message)
            else:
                kept.append(message)
        return b"".join(map(encode, kept))

    def close(self) -> None:
        """Forget all."""
        self._windows.put(self, None)
        while self._queue:
            self._queue.pop(0)[0].respond(NOT_FOUND)

    def _resolve(self, name: str) -> bytes | None:
        if len(name) == SHORT_NAME:
            return self._known.get(name)
        if len(name) != FULL_NAME:
            return None
        try:
            return base64.b64decode(name + "=", altchars=b"-_", validate=True)
        except ValueError:
            return None

    def _work(self) -> None:
        """Answer requests for which the data is there; ask for what the next one needs."""
        while self._queue:
            request, blob, want = self._queue[0]
            window = self._windows.get(self)
            if window is None or not window.covers(blob, want):
                self._ask(blob, want, window)
                return
            self._queue.pop(0)
            self._answer(request, window, want)

    def _ask(self, blob: bytes, want: Block, window: Window | None) -> None:
        offset = want.offset
        if window is not None and self._touches(window, blob, want):
            # The master gives no more than fits into a frame: go on behind what is there.
            offset = window.offset + len(window.data)
        self._next_id += 1
        self._asked = self._next_id
        self._inject(
            encode(BlobGet(self._asked, BlobId(blob), offset, max(want.size, BLOB_READ_AHEAD_BYTES)))
        )

    @staticmethod
    def _touches(window: Window, blob: bytes, want: Block) -> bool:
        return window.blob == blob and 0 <= want.offset - window.offset <= len(window.data)

    def _take(self, answer: BlobData | Failed) -> None:
        if not self._queue:
            return
        request, blob, want = self._queue[0]
        end = isinstance(answer, BlobData) and answer.offset + len(answer.data) >= answer.size
        if isinstance(answer, Failed) or answer.blob != blob or not (answer.data or end):
            self._queue.pop(0)
            request.respond(NOT_FOUND)
        else:
            window = self._windows.get(self)
            data, offset = answer.data, answer.offset
            if window is not None and self._touches(window, blob, want):
                data = window.data[want.offset - window.offset :] + data
                offset = want.offset
            self._windows.put(self, Window(blob, offset, answer.size, data))
        self._work()

    def _answer(self, request: Request, window: Window, want: Block) -> None:
        name = base64.urlsafe_b64encode(window.blob).decode()[:SHORT_NAME]
        self._known.pop(name, None)
        self._known[name] = window.blob
        if len(self._known) > KNOWN_BLOBS:
            del self._known[next(iter(self._known))]
        options: Options = [(ETAG, window.blob[:ETAG_BYTES]), (CONTENT_FORMAT, uint(OCTETS))]
        if request.message.option(SIZE2) is not None:
            options.append((SIZE2, uint(window.size)))
        block = msgspec.structs.replace(want, asked=True)
        respond_in_blocks(
            request, CONTENT, options, window.data, block, offset=window.offset, size=window.size
        )
