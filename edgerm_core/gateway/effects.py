"""What the gateway wants done: orders, carried out in order, records first."""

from __future__ import annotations

import msgspec

from edgerm_core.gateway.records import Record
from edgerm_core.ids import BlobId, SessionId
from edgerm_core.messages import BlobGet, Heartbeat, Refused, RelayClose, Relayed, RelayOpen


class _Effect(msgspec.Struct, frozen=True):
    """Base of all effects."""


class SendUp(_Effect, frozen=True):
    """Send this to the master in the gateway's own session."""

    message: RelayOpen | Relayed | RelayClose | Heartbeat


class SendDown(_Effect, frozen=True):
    """Send this frame to a device whose connection said that it can take one."""

    session: SessionId
    frame: bytes


class CloseDevice(_Effect, frozen=True):
    """End a device's connection, after telling it why if there is a `refused`."""

    session: SessionId
    reason: str
    refused: Refused | None = None


class WriteRecord(_Effect, frozen=True):
    """Write this down; `Synced` counts it."""

    record: Record


class ServeBlob(_Effect, frozen=True):
    """A device wants a piece of a blob; answered by BlobAnswered."""

    session: SessionId
    request: BlobGet


class FetchBlob(_Effect, frozen=True):
    """A device is going to want this blob."""

    blob: BlobId


class Report(_Effect, frozen=True):
    """Something the operator should find in the log."""

    level: int
    text: str


Effect = SendUp | SendDown | CloseDevice | WriteRecord | ServeBlob | FetchBlob | Report
