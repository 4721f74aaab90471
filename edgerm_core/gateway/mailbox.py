"""What waits for a device until its connection takes it: the newest order of each kind, in order.

Orders are levels: of a repeated one the newest counts, a Kill makes the Launch before it needless, and
what does not fit is left out, since the master repeats it until it is confirmed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from edgerm_core.codec import encode
from edgerm_core.ids import TaskId
from edgerm_core.limits import (
    MAILBOX_BYTES,
    MAILBOX_MESSAGES,
    MAX_BATCH_MESSAGES,
    MAX_BLOB_REQUESTS,
)
from edgerm_core.messages import (
    Acknowledge,
    BlobData,
    Failed,
    HeartbeatAck,
    Kill,
    Launch,
    LogGet,
    Registered,
)

Mail = Registered | HeartbeatAck | Launch | Kill | Acknowledge | LogGet | BlobData | Failed

REGISTERED: Final = ("registered",)
HEARTBEAT: Final = ("heartbeat",)


class Mailbox:
    """The messages for one device.

    Attributes:
        launched: attempt of each task whose Launch has been taken last; its owner forgets those of which
            the device has spoken.
    """

    def __init__(self) -> None:
        self.launched: dict[TaskId, int] = {}
        self._mail: dict[Hashable, tuple[Mail, bytes]] = {}
        self._bytes = 0
        self._blobs = 0

    def __len__(self) -> int:
        return len(self._mail)

    @property
    def waiting_bytes(self) -> int:
        """Size of everything that waits."""
        return self._bytes

    def put(self, message: Mail) -> bool:
        """Let a message wait; return whether there was room, or no need."""
        match message:
            case Registered():
                # Whatever stands before it would be said to somebody who is not registered yet.
                waiting, self._mail = self._mail, {}
                waiting.pop(REGISTERED, None)
                self._mail[REGISTERED] = (message, encode(message))
                self._mail.update(waiting)
                self._bytes = sum(len(data) for _, data in self._mail.values())
                return True
            case HeartbeatAck():
                self._put_heartbeat_ack(message)
                return True
            case Launch():
                return self._put_launch(message)
            case Kill():
                return self._put_kill(message)
            case Acknowledge():
                key = ("ack", message.task_id, message.attempt)
                before = self._mail.get(key)
                if before is not None and before[0].seq >= message.seq:  # type: ignore[union-attr]
                    return True
                return self._order(key, message)
            case LogGet():
                return self._put_log_get(message)
            case BlobData() | Failed():
                if self._blobs >= MAX_BLOB_REQUESTS:
                    return False
                self._blobs += 1
                self._set(("blob", message.request_id), message)
                return True

    def take(self, max_bytes: int) -> bytes | None:
        """Return as much as fits into one frame; None if nothing waits. Oversized mail is left out."""
        parts: list[bytes] = []
        size = 0
        for key, (message, data) in list(self._mail.items()):
            if len(data) > max_bytes:
                self._remove(key)
                continue
            if size + len(data) > max_bytes or len(parts) >= MAX_BATCH_MESSAGES:
                break
            parts.append(data)
            size += len(data)
            self._remove(key)
            if isinstance(message, Launch):
                self.launched[message.task_id] = message.attempt
        return b"".join(parts) if parts else None

    def connection_ended(self) -> None:
        """Only orders and acknowledgements outlive the connection they would have been sent on."""
        for key, (message, _) in list(self._mail.items()):
            if not isinstance(message, Launch | Kill | Acknowledge):
                self._remove(key)

    def drop_launches(self) -> None:
        """Those that wait come from a session with the master that is over; in the next one it says again
        what shall run."""
        for key, (message, _) in list(self._mail.items()):
            if isinstance(message, Launch):
                self._remove(key)

    # --- one kind each ------------------------------------------------------------------------

    def _put_heartbeat_ack(self, ack: HeartbeatAck) -> None:
        before = self._mail.get(HEARTBEAT)
        if before is not None:
            waiting = before[0]
            assert isinstance(waiting, HeartbeatAck)
            heartbeat_s, lease_s = ack.heartbeat_s or waiting.heartbeat_s, ack.lease_s or waiting.lease_s
            ack = HeartbeatAck(heartbeat_s, lease_s, ack.away_s)
        self._set(HEARTBEAT, ack)

    def _put_launch(self, launch: Launch) -> bool:
        key, kill = ("launch", launch.task_id), ("kill", launch.task_id)
        for other in (key, kill):
            before = self._mail.get(other)
            if before is not None:
                attempt = before[0].attempt  # type: ignore[union-attr]
                if attempt > launch.attempt or (other == kill and attempt == launch.attempt):
                    return True
        return self._order(key, launch)

    def _put_kill(self, kill: Kill) -> bool:
        before = self._mail.get(("kill", kill.task_id))
        if before is not None and before[0].attempt > kill.attempt:  # type: ignore[union-attr]
            return True
        launch = self._mail.get(("launch", kill.task_id))
        if launch is not None and launch[0].attempt <= kill.attempt:  # type: ignore[union-attr]
            self._remove(("launch", kill.task_id))
        return self._order(("kill", kill.task_id), kill)

    def _put_log_get(self, get: LogGet) -> bool:
        if get.cancel and self._remove(("log", get.request_id)):
            return True
        return self._order(("cancel" if get.cancel else "log", get.request_id), get)

    def _order(self, key: Hashable, message: Mail) -> bool:
        """Let an order wait behind the others, in place of the one with the same key."""
        self._remove(key)
        data = encode(message)
        if len(self._mail) >= MAILBOX_MESSAGES or self._bytes + len(data) > MAILBOX_BYTES:
            return False
        self._mail[key] = (message, data)
        self._bytes += len(data)
        return True

    def _set(self, key: Hashable, message: Mail) -> None:
        self._remove(key)
        data = encode(message)
        self._mail[key] = (message, data)
        self._bytes += len(data)

    def _remove(self, key: Hashable) -> bool:
        entry = self._mail.pop(key, None)
        if entry is None:
            return False
        self._bytes -= len(entry[1])
        if isinstance(entry[0], BlobData | Failed):
            self._blobs -= 1
        return True
