"""What can happen to the master: facts, in the past. The runner (or a test, or a simulator) makes them."""

from __future__ import annotations

import msgspec

from edgerm_core.ids import BlobId, SessionId
from edgerm_core.messages import AnyMessage


class SessionOpened(msgspec.Struct, frozen=True, gc=False):
    """Somebody connected.

    Attributes:
        peer: where from, for people.
        identity: whom the transport authenticated; None: nobody.
        push: whether messages reach it without being asked for.
    """

    session_id: SessionId
    peer: str
    identity: str | None = None
    push: bool = True


class SessionClosed(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone, whoever ended it."""

    session_id: SessionId
    reason: str = ""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A well-formed message arrived."""

    session_id: SessionId
    message: AnyMessage


class BlobStored(msgspec.Struct, frozen=True, gc=False):
    """A blob is complete on the master's disk and its hash is right."""

    blob: BlobId
    size: int


class BlobRemoved(msgspec.Struct, frozen=True, gc=False):
    """A blob is no longer on the master's disk."""

    blob: BlobId


class BatchEnded(msgspec.Struct, frozen=True, gc=False):
    """All events at hand have been handled: time to look at deadlines, place tasks, and write."""


Event = SessionOpened | SessionClosed | Received | BlobStored | BlobRemoved | BatchEnded
