"""Fetches blobs from the master, piece by piece, through whatever session there is.

A transfer outlives sessions and the agent process: what has come is in a `.part` file, and the next
request begins behind it. All tasks that want the same blob share one transfer.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from edgerm_core.agent.blob_cache import BlobCache
from edgerm_core.errors import BlobError
from edgerm_core.ids import BlobId
from edgerm_core.limits import BLOB_CHUNK_BYTES, BLOB_WINDOW_CHUNKS, REQUEST_TIMEOUT_S
from edgerm_core.messages import BlobData, BlobGet, Failed, Message
from edgerm_core.tasks import Reason

log = logging.getLogger(__name__)

MAX_BAD_TRANSFERS: Final = 3
"""Transfers of one blob whose content did not match before its tasks fail."""

MAX_SILENCES: Final = 5
"""Times in a row that a connected master may leave a request unanswered before its tasks fail."""


class BlobProblem(BlobError):
    """A blob cannot be had. `reason` is that of its tasks' status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BlobFetcher:
    """Makes blobs available as files.

    Parameters:
        cache: where they are kept.
        tasks: runs the transfers.
        send: sends a message in the current session.
    """

    def __init__(
        self, cache: BlobCache, tasks: anyio.abc.TaskGroup, send: Callable[[Message], None]
    ) -> None:
        self.cache = cache
        self._tasks = tasks
        self._send = send
        self._transfers: dict[BlobId, _Transfer] = {}
        self._requests: dict[int, _Transfer] = {}
        self._last_request = 0
        self._connected = False

    async def get(self, blob: BlobId) -> Path:
        """Return the blob's file, fetching it first if need be. Cancel-safe.

        The caller holds the blob in the cache, before and for as long as it uses the file.

        Raises:
            BlobProblem: if the master does not have it, or keeps sending something else.
        """
        if blob in self.cache:
            return self.cache.path(blob)
        transfer = self._transfers.get(blob)
        if transfer is None:
            transfer = self._transfers[blob] = _Transfer(self, blob)
            self._tasks.start_soon(transfer.run)
        transfer.wanted += 1
        try:
            await transfer.done.wait()
        finally:
            transfer.wanted -= 1
            if not transfer.wanted:
                transfer.scope.cancel()
        if transfer.problem is not None:
            raise transfer.problem
        return self.cache.path(blob)

    def session_began(self) -> None:
        """A master takes requests: go on with every transfer."""
        self._connected = True
        for transfer in self._transfers.values():
            transfer.wake()

    def session_ended(self) -> None:
        """Nothing that was asked for will be answered."""
        self._connected = False
        self._requests.clear()
        for transfer in self._transfers.values():
            transfer.pending.clear()
            transfer.wake()

    def on_message(self, message: BlobData | Failed) -> None:
        """Take an answer. One that nobody waits for is ignored."""
        transfer = self._requests.pop(message.request_id, None)
        if transfer is not None:
            transfer.on_answer(message)

    def request(self, transfer: _Transfer, offset: int, length: int) -> int:
        """Send a BlobGet and return its id."""
        self._last_request += 1
        self._requests[self._last_request] = transfer
        self._send(BlobGet(self._last_request, transfer.blob, offset, length))
        return self._last_request

    def drop_requests(self, transfer: _Transfer) -> None:
        """Forget what is still unanswered."""
        for request_id in transfer.pending:
            self._requests.pop(request_id, None)
        transfer.pending.clear()

    def ended(self, transfer: _Transfer) -> None:
        """The transfer is over, well or badly."""
        self.drop_requests(transfer)
        if self._transfers.get(transfer.blob) is transfer:
            del self._transfers[transfer.blob]

    @property
    def connected(self) -> bool:
        """Whether a master takes requests now."""
        return self._connected


class _Transfer:
    """One blob on its way.

    Attributes:
        wanted: how many wait for it.
        done: set when it is over; `problem` says how.
        pending: requests under way, by id: the offset of each.
    """

    def __init__(self, fetcher: BlobFetcher, blob: BlobId) -> None:
        self._fetcher = fetcher
        self._cache = fetcher.cache
        self.blob = blob
        self.wanted = 0
        self.done = anyio.Event()
        self.problem: BlobProblem | None = None
        self.scope = anyio.CancelScope()
        self.pending: dict[int, int] = {}
        self._answers: deque[BlobData | Failed] = deque()
        self._woken = anyio.Event()

    def wake(self) -> None:
        """Something has changed: an answer came, or the session did."""
        self._woken.set()

    def on_answer(self, message: BlobData | Failed) -> None:
        """Take an answer to one of the pending requests."""
        self._answers.append(message)
        self.wake()

    async def run(self) -> None:
        """Fetch it; sets `done`, whatever happens."""
        try:
            with self.scope:
                await self._fetch()
        except BlobProblem as problem:
            self.problem = problem
            # What has come may be the cause, and must not spoil the next try as well.
            self._cache.part_path(self.blob).unlink(missing_ok=True)
        except OSError as error:
            text = f"blob {self.blob.hex()[:12]} cannot be kept on this agent's disk: {error}"
            self.problem = BlobProblem(Reason.BLOB_UNAVAILABLE, text)
        finally:
            self._fetcher.ended(self)
            self.done.set()

    async def _fetch(self) -> None:
        for _ in range(MAX_BAD_TRANSFERS):
            await self._transfer()
            if await anyio.to_thread.run_sync(self._cache.finish, self.blob):
                self._cache.add(self.blob)
                return
            log.warning("blob %s came damaged; fetching it again", self.blob.hex()[:12])
        text = f"blob {self.blob.hex()[:12]} came damaged {MAX_BAD_TRANSFERS} times"
        raise BlobProblem(Reason.BLOB_INVALID, text)

    async def _transfer(self) -> None:
        """Append to the `.part` file until it is complete."""
        part = self._cache.part_path(self.blob)
        have = await anyio.to_thread.run_sync(_append, part, b"")
        size: int | None = None
        asked = have
        early: dict[int, bytes] = {}
        silences = 0
        while size is None or have < size:
            if not self._fetcher.connected:
                asked = have
                early.clear()
                await self._wait(math.inf)
                continue
            # One request first: only its answer says how large the blob is.
            window = BLOB_WINDOW_CHUNKS if size is not None else 1
            while len(self.pending) + len(early) < window and (size is None or asked < size):
                self.pending[self._fetcher.request(self, asked, BLOB_CHUNK_BYTES)] = asked
                asked += BLOB_CHUNK_BYTES
            if not self._answers and not await self._wait(REQUEST_TIMEOUT_S):
                silences += 1
                if silences >= MAX_SILENCES:
                    text = f"blob {self.blob.hex()[:12]}: the master does not answer"
                    raise BlobProblem(Reason.BLOB_UNAVAILABLE, text)
                self._fetcher.drop_requests(self)
                asked = have
                early.clear()
                continue
            while self._answers:
                size = self._take(self._answers.popleft(), early, have)
                silences = 0
            while (piece := early.pop(have, None)) is not None:
                have = await anyio.to_thread.run_sync(_append, part, piece)
                if len(piece) < BLOB_CHUNK_BYTES and have < (size or 0):
                    # The master sends smaller pieces than were asked for: ask anew behind it.
                    self._fetcher.drop_requests(self)
                    early.clear()
                    asked = have

    def _take(self, answer: BlobData | Failed, early: dict[int, bytes], have: int) -> int:
        """Keep a piece; return the size of the blob."""
        offset = self.pending.pop(answer.request_id, None)
        if isinstance(answer, Failed):
            text = f"blob {self.blob.hex()[:12]} cannot be fetched: {answer.message}"
            raise BlobProblem(Reason.BLOB_UNAVAILABLE, text)
        if answer.size > self._cache.max_bytes:
            text = (
                f"blob {self.blob.hex()[:12]} has {answer.size} bytes, "
                f"more than this agent keeps (agent.blob_cache_bytes)"
            )
            raise BlobProblem(Reason.BLOB_UNAVAILABLE, text)
        if answer.blob != self.blob or not 0 <= answer.offset <= answer.size:
            raise BlobProblem(Reason.BLOB_UNAVAILABLE, "the master answered for another blob")
        at_end = answer.offset + len(answer.data) >= answer.size
        if not answer.data and not at_end:
            raise BlobProblem(Reason.BLOB_UNAVAILABLE, "the master sent an empty piece of a blob")
        # `offset` is None for an answer that came after its request was given up: not wanted any more.
        if offset is not None and answer.offset == offset and offset >= have and answer.data:
            early[offset] = answer.data
        return answer.size

    async def _wait(self, seconds: float) -> bool:
        """Wait for an answer or a change of session; return whether one came in time."""
        if not self._woken.is_set():
            with anyio.move_on_after(seconds):
                await self._woken.wait()
        came = self._woken.is_set()
        self._woken = anyio.Event()
        return came


def _append(part: Path, piece: bytes) -> int:
    """Append to the file, which is made if it is not there, and return its size."""
    with open(part, "ab", buffering=0) as file:
        if file.write(piece) < len(piece):
            raise OSError("the disk is full")
        return file.tell()
