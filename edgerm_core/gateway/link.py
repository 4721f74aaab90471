"""One device's connection: reads frames into events, writes frames when the connection takes one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from edgerm_core.agent.blobs import BlobFetcher, BlobProblem
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import ConnectionClosed, DecodeError
from edgerm_core.gateway import events
from edgerm_core.gateway.effects import CloseDevice
from edgerm_core.ids import BlobId, SessionId
from edgerm_core.interfaces import Connection
from edgerm_core.limits import BLOB_CHUNK_BYTES, MAX_BLOB_REQUESTS
from edgerm_core.messages import BlobData, BlobGet, Failed, RefusalCode, Refused

log = logging.getLogger(__name__)

CLOSE_FLUSH_S: Final = 2.0
"""How long a device may take to read why it is refused."""

BLOB_ENVELOPE_BYTES: Final = 128
"""Around a piece of a blob."""

REFUSAL_PART: Final = 8
"""A refusal's sentence takes at most this part of a frame, in characters of up to 4 bytes."""


class DeviceLink:
    """The connection.

    Parameters:
        session: its number.
        connection: closed when `run` returns.
        handle: takes an event.
        room: waits until what the device says can be passed on.
        blobs: where blobs come from.
    """

    def __init__(
        self,
        session: SessionId,
        connection: Connection,
        handle: Callable[[events.Event], None],
        room: Callable[[], Awaitable[None]],
        blobs: BlobFetcher,
    ) -> None:
        self._session = session
        self._connection = connection
        self._handle = handle
        self._room = room
        self._blobs = blobs
        self._frame: bytes | None = None
        self._changed = anyio.Event()
        self._closing: CloseDevice | None = None
        self._sending = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._blob_requests = 0
        #: The blob it has last asked for, held in the cache so that the next piece is there too.
        self._blob: BlobId | None = None

    # --- used by the runner, never waits ------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a frame, the only one until the next DeviceReady."""
        self._frame = frame
        self._changed.set()

    def close(self, order: CloseDevice) -> None:
        """End the connection, telling the device why."""
        self._closing = order
        self._sending.cancel()
        self._changed.set()

    def serve_blob(self, get: BlobGet) -> None:
        """Answer a BlobGet; more than MAX_BLOB_REQUESTS at a time are left to be repeated."""
        if self._tasks is not None and self._blob_requests < MAX_BLOB_REQUESTS:
            self._blob_requests += 1
            self._tasks.start_soon(self._serve_blob, get)

    # --- coroutines ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the connection from its opening to its end."""
        connection = self._connection
        self._handle(events.DeviceConnected(self._session, connection.peer, connection.max_message_bytes))
        reason = "closed"
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._write, self._tasks.cancel_scope)
                reason = await self._read()
                self._tasks.cancel_scope.deadline = anyio.current_time() + CLOSE_FLUSH_S
                if self._closing is None:
                    self.close(CloseDevice(self._session, reason))
        finally:
            if self._blob is not None:
                self._blobs.cache.let_go(self._blob)
            self._handle(events.DeviceGone(self._session, reason))

    async def _read(self) -> str:
        """Turn frames into events until the connection ends; return why it did."""
        while True:
            try:
                messages = decode_batch(await self._connection.receive())
            except ConnectionClosed as error:
                return str(error)
            except DecodeError as error:
                log.info("%s sent something malformed: %s", self._connection.peer, error)
                refused = Refused(RefusalCode.MALFORMED, str(error))
                self.close(CloseDevice(self._session, str(error), refused))
                return str(error)
            self._handle(events.DeviceSaid(self._session, messages))
            await self._room()

    async def _write(self, scope: anyio.CancelScope) -> None:
        try:
            with self._sending:
                while self._closing is None:
                    self._handle(events.DeviceReady(self._session))
                    while self._frame is None and self._closing is None:
                        self._changed = anyio.Event()
                        await self._changed.wait()
                    frame, self._frame = self._frame, None
                    if frame is not None:
                        await self._connection.send(frame)
        except ConnectionClosed:
            pass
        with anyio.move_on_after(CLOSE_FLUSH_S):
            await self._say_goodbye()
        reason = self._closing.reason if self._closing is not None else ""
        await self._connection.close(reason)
        scope.cancel()

    async def _say_goodbye(self) -> None:
        if self._closing is None or self._closing.refused is None:
            return
        code, text = self._closing.refused.code, self._closing.refused.message
        text = text[: self._connection.max_message_bytes // REFUSAL_PART]
        try:
            await self._connection.send(encode(Refused(code, text)))
        except ConnectionClosed:
            pass

    # --- blobs --------------------------------------------------------------------------------

    async def _serve_blob(self, get: BlobGet) -> None:
        cache = self._blobs.cache
        if get.blob != self._blob:
            cache.hold(get.blob)
            if self._blob is not None:
                cache.let_go(self._blob)
            self._blob = get.blob
        cache.hold(get.blob)
        answer: BlobData | Failed
        try:
            path = await self._blobs.get(get.blob)
            room = self._connection.max_message_bytes - BLOB_ENVELOPE_BYTES
            length = max(1, min(get.length, BLOB_CHUNK_BYTES, room))
            size, data = await anyio.to_thread.run_sync(_read_piece, path, get.offset, length)
            answer = BlobData(get.request_id, get.blob, get.offset, size, data)
        except (BlobProblem, OSError) as error:
            answer = Failed(get.request_id, RefusalCode.NOT_FOUND, str(error))
        finally:
            cache.let_go(get.blob)
            self._blob_requests -= 1
        self._handle(events.BlobAnswered(self._session, answer))


def _read_piece(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """Return the blob's size and a piece of it."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(min(offset, size))
        return size, file.read(length)
