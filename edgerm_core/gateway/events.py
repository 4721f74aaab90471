"""What the gateway is told: facts, in the past tense.

Events of devices carry the number of their connection, events of the master that of the channel, so that
news of something that is gone is recognised as such and ignored.
"""

from __future__ import annotations

import msgspec

from edgerm_core.ids import SessionId
from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.messages import AnyMessage, BlobData, Failed


class _Event(msgspec.Struct, frozen=True):
    """Base of all events."""


class Ticked(_Event, frozen=True):
    """Time has passed: `Gateway.next_deadline()` has come."""


# --- the uplink -------------------------------------------------------------------------------


class UplinkOpened(_Event, frozen=True):
    """The gateway agent is registered with its master.

    Attributes:
        master_id: whose books.
        heartbeat_s: how often the master wants to hear from the gateway.
        max_message_bytes: largest message that can be sent to it.
    """

    master_id: str
    heartbeat_s: float
    max_message_bytes: int = MAX_MESSAGE_BYTES


class UplinkClosed(_Event, frozen=True):
    """The gateway agent's session is over, and every channel with it."""


class MasterSaid(_Event, frozen=True):
    """A frame came on a channel."""

    channel: int
    messages: list[AnyMessage]


class ChannelClosed(_Event, frozen=True):
    """The master closed a channel."""

    channel: int
    reason: str


# --- devices ----------------------------------------------------------------------------------


class DeviceConnected(_Event, frozen=True):
    """Somebody dialled.

    Attributes:
        max_message_bytes: the largest frame its connection takes.
    """

    session: SessionId
    peer: str
    max_message_bytes: int


class DeviceSaid(_Event, frozen=True):
    """A frame came from a device."""

    session: SessionId
    messages: list[AnyMessage]


class DeviceReady(_Event, frozen=True):
    """The device's connection can take a frame."""

    session: SessionId


class DeviceGone(_Event, frozen=True):
    """The device's connection is over, whoever ended it."""

    session: SessionId
    reason: str


class BlobAnswered(_Event, frozen=True):
    """The answer to a ServeBlob."""

    session: SessionId
    message: BlobData | Failed


# --- the disk ---------------------------------------------------------------------------------


class Synced(_Event, frozen=True):
    """So many of the records that were written since the start would survive a power cut now."""

    records: int


Event = (
    Ticked
    | UplinkOpened
    | UplinkClosed
    | MasterSaid
    | ChannelClosed
    | DeviceConnected
    | DeviceSaid
    | DeviceReady
    | DeviceGone
    | BlobAnswered
    | Synced
)
