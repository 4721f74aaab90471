"""What can happen to the master: facts, in the past. The runner (or a test, or a simulator) makes them."""

from __future__ import annotations

import msgspec

from edgerm_core.ids import AgentId, BlobId, SessionId
from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.messages import AnyMessage, Launch


class SessionOpened(msgspec.Struct, frozen=True, gc=False):
    """Somebody connected.

    Attributes:
        peer: where from, for people.
        identity: whom the transport authenticated; None: nobody.
        push: whether messages reach it without being asked for.
        max_message_bytes: largest message that can be sent to it.
        via: the gateway whose connection it shares; None: it has its own.
        age_s: how long ago a device behind a gateway registered there.
        custody_of: an agent that a gateway holds status updates of; the session carries only these.
    """

    session_id: SessionId
    peer: str
    identity: str | None = None
    push: bool = True
    max_message_bytes: int = MAX_MESSAGE_BYTES
    via: AgentId | None = None
    age_s: float = 0.0
    custody_of: AgentId | None = None


class SessionClosed(msgspec.Struct, frozen=True, gc=False):
    """The connection is gone, whoever ended it."""

    session_id: SessionId
    reason: str = ""


class Received(msgspec.Struct, frozen=True, gc=False):
    """A well-formed message arrived."""

    session_id: SessionId
    message: AnyMessage


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A gateway has heard the devices of these sessions, which had nothing to say."""

    session_ids: tuple[SessionId, ...]


class Undeliverable(msgspec.Struct, frozen=True, gc=False):
    """An order was larger than the session's connection takes, and has not been sent."""

    session_id: SessionId
    launch: Launch
    size_bytes: int


class BlobStored(msgspec.Struct, frozen=True, gc=False):
    """A blob is complete on the master's disk and its hash is right."""

    blob: BlobId
    size: int


class BlobRemoved(msgspec.Struct, frozen=True, gc=False):
    """A blob is no longer on the master's disk."""

    blob: BlobId


class BatchEnded(msgspec.Struct, frozen=True, gc=False):
    """All events at hand have been handled: time to look at deadlines, place tasks, and write."""


Event = (
    SessionOpened | SessionClosed | Received | Heard | Undeliverable | BlobStored | BlobRemoved | BatchEnded
)
