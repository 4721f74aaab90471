"""One session's connection: dials, then reads and writes frames until either side ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc

from edgerm_core.agent.logs_service import LogsService
from edgerm_core.agent.sandbox import Sandboxes
from edgerm_core.codec import decode_batch, encode_within
from edgerm_core.errors import ConfigError, ConnectionClosed, DecodeError, EdgermError
from edgerm_core.ids import SessionId
from edgerm_core.interfaces import Connection, Transport
from edgerm_core.limits import (
    GREETING_TIMEOUT_S,
    MAX_BATCH_MESSAGES,
    MAX_MESSAGE_BYTES,
    SESSION_INBOX_FRAMES,
)
from edgerm_core.messages import AnyMessage, LogData, LogGet, Message

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 2.0
"""For telling the master goodbye."""

MAX_QUEUED_LOGS: Final = 4
"""Pieces of logs that wait for the connection; the streams wait beyond, and status updates go past."""

MAX_OUTBOX_MESSAGES: Final = 65_536
"""Messages waiting for a master that does not read; four times all updates that can be unacknowledged."""


class Link:
    """The connection of one session.

    Parameters:
        session: its number.
        transport, url: where to.
        sandboxes: where logs are read from.
        on_connected: told the peer once the connection stands.
        on_frame: given the messages of each frame.
        on_sent: told after each frame that left.
    """

    def __init__(
        self,
        session: SessionId,
        transport: Transport,
        url: str,
        sandboxes: Sandboxes,
        on_connected: Callable[[SessionId, str], None],
        on_frame: Callable[[SessionId, list[AnyMessage]], None],
        on_sent: Callable[[SessionId], None],
    ) -> None:
        self.session = session
        #: Of the connection, once it stands.
        self.max_message_bytes = MAX_MESSAGE_BYTES
        self._transport = transport
        self._url = url
        self._sandboxes = sandboxes
        self._on_connected = on_connected
        self._on_frame = on_frame
        self._on_sent = on_sent
        self._outbox: list[Message] = []
        self._outbox_changed = anyio.Event()
        self._unhandled_frames = 0
        self._handled = anyio.Event()
        self._scope = anyio.CancelScope()
        self._problem = ""
        self._queued_logs = 0
        self._flushed = anyio.Event()

    # --- used by the runner, never waits ------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue a message; it leaves with all others of this loop turn in one frame."""
        if not self._outbox:
            self._outbox_changed.set()
        elif len(self._outbox) >= MAX_OUTBOX_MESSAGES:
            self.close("the master does not read what it is sent")
            return
        self._outbox.append(message)

    async def wait_room(self, messages: int) -> None:
        """Wait while more than so many messages wait, and the connection lives."""
        while len(self._outbox) > messages and not self._scope.cancel_called:
            await self._flushed.wait()

    def handled(self, session: SessionId) -> None:
        """A frame given to `on_frame` has been dealt with; one of an older session does not count."""
        if session == self.session:
            self._unhandled_frames -= 1
            self._handled.set()

    def close(self, reason: str) -> None:
        """End the connection. `run` returns soon."""
        self._problem = self._problem or reason
        self._scope.cancel()
        self._flushed.set()

    # --- the coroutine ------------------------------------------------------------------------

    async def run(self) -> str:
        """Dial, and serve the session; return why it ended, as a sentence."""
        with self._scope:
            try:
                with anyio.fail_after(GREETING_TIMEOUT_S):
                    connection = await self._transport.connect(self._url)
            except TimeoutError:
                return f"{self._url} does not answer"
            except ConfigError:
                raise
            except EdgermError as error:
                return str(error)
            except Exception as error:
                log.exception("transport failed to connect to %s", self._url)
                return f"{self._url}: {type(error).__name__}: {error}"
            await self._serve(connection)
        return self._problem

    async def _serve(self, connection: Connection) -> None:
        self.max_message_bytes = connection.max_message_bytes
        self._on_connected(self.session, connection.peer)
        try:
            async with anyio.create_task_group() as tasks:
                logs = LogsService(self._sandboxes, tasks, self._send_log)
                tasks.start_soon(self._write, connection)
                tasks.start_soon(self._read, connection, logs)
        finally:
            self._flushed.set()
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await connection.close(self._problem)

    async def _read(self, connection: Connection, logs: LogsService) -> None:
        try:
            while True:
                messages = decode_batch(await connection.receive())
                self._unhandled_frames += 1
                self._on_frame(self.session, messages)
                for message in messages:
                    if isinstance(message, LogGet):
                        logs.on_get(message)
                while self._unhandled_frames >= SESSION_INBOX_FRAMES:
                    self._handled = anyio.Event()
                    await self._handled.wait()
        except DecodeError as error:
            log.error("%s sent something that is not a message: %s", connection.peer, error)
            self.close(f"the master sent something that is not a message: {error}")
        except ConnectionClosed as error:
            self.close(str(error))
        except Exception as error:
            log.exception("transport failed to read from %s", connection.peer)
            self.close(f"{connection.peer}: {type(error).__name__}: {error}")

    async def _write(self, connection: Connection) -> None:
        try:
            while True:
                await self._outbox_changed.wait()
                self._outbox_changed = anyio.Event()
                messages, self._outbox = self._outbox, []
                for frame in frames(messages, connection.max_message_bytes):
                    await connection.send(frame)
                    self._on_sent(self.session)
                self._queued_logs = 0
                self._flushed.set()
                self._flushed = anyio.Event()
        except ConnectionClosed as error:
            self.close(str(error))
        except Exception as error:
            log.exception("transport failed to write to %s", connection.peer)
            self.close(f"{connection.peer}: {type(error).__name__}: {error}")

    async def _send_log(self, message: LogData) -> None:
        while self._queued_logs >= MAX_QUEUED_LOGS:
            await self._flushed.wait()
        self._queued_logs += 1
        self.send(message)


def frames(messages: list[Message], max_bytes: int) -> list[bytes]:
    """Return the messages as few frames of at most `max_bytes` each, in order.

    A status update that is too large for this connection goes without its result, and says so; anything
    else that is too large is left out and logged.
    """
    done: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for message in messages:
        data = encode_within(message, max_bytes)
        if data is None:
            log.error(
                "a %s is larger than the %d bytes of this connection", type(message).__name__, max_bytes
            )
            continue
        if parts and (size + len(data) > max_bytes or len(parts) >= MAX_BATCH_MESSAGES):
            done.append(b"".join(parts))
            parts, size = [], 0
        parts.append(data)
        size += len(data)
    if parts:
        done.append(b"".join(parts))
    return done
