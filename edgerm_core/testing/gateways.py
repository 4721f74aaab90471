"""A gateway's state machine on the bench: scripted devices below it, a scripted master above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.codec import decode_batch
from edgerm_core.config import GatewayConfig
from edgerm_core.gateway import effects, events, invariants
from edgerm_core.gateway.custody import recover
from edgerm_core.gateway.records import decode_record, encode_record
from edgerm_core.gateway.state import Gateway
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.limits import MAX_MESSAGE_BYTES
from edgerm_core.messages import (
    AnyMessage,
    Heartbeat,
    Register,
    Registered,
    RelayClose,
    Relayed,
    RelayOpen,
    TaskReport,
)

MessageT = TypeVar("MessageT")

CONFIG = GatewayConfig(heartbeat_s=10.0, heartbeat_constrained_s=60.0, lease_grace_s=5.0)


def a_register(name: str = "d1", **fields: Any) -> Register:
    """Return what a device says of itself."""
    tasks: Sequence[TaskReport] = fields.pop("tasks", ())
    boot_id, incarnation = fields.pop("boot_id", "b1"), fields.pop("incarnation", "i1")
    info = AgentInfo(AgentId(name), name, executors=(Fingerprint("test"),), **fields)
    return Register((1, 1), info, boot_id, incarnation, tuple(tasks))


class GatewayBench:
    """The gateway, the time, and everything it has asked for.

    Attributes:
        up: messages to the master, in order.
        inboxes: what each connection was sent, in order.
        closed: connections that the gateway ended.
        done: all other effects, in order.
        journal: records as bytes, in order.
        synced: how many of them would survive a power cut.
        ready: connections take frames at once; if not, `fetch` takes one.
    """

    def __init__(self, config: GatewayConfig = CONFIG, name: str = "gw") -> None:
        self.now = 1000.0
        self.config = config
        self.name = AgentId(name)
        self.ready = True
        self.up: list[AnyMessage] = []
        self.inboxes: dict[SessionId, list[AnyMessage]] = {}
        self.closed: dict[SessionId, effects.CloseDevice] = {}
        self.done: list[effects.Effect] = []
        self.journal: list[bytes] = []
        self.synced = 0
        self._sessions = 0
        self._boot()

    def _boot(self) -> None:
        custody = recover(self.config.custody_bytes, map(decode_record, self.journal))
        self.gateway = Gateway(self.config, self.name, custody)
        self._before = len(self.journal)

    def tell(self, event: events.Event) -> None:
        """Hand in an event, carry out what comes of it, and check what must always hold."""
        for effect in self.gateway.handle(event, self.now):
            match effect:
                case effects.WriteRecord(record):
                    self.journal.append(encode_record(record))
                case effects.SendUp(message):
                    self.up.append(message)
                case effects.SendDown(session, frame):
                    self.inboxes[session] += decode_batch(frame)
                    if self.ready:
                        self.tell(events.DeviceReady(session))
                case effects.CloseDevice():
                    self.closed[effect.session] = effect
                case _:
                    self.done.append(effect)
        self.check()

    def check(self) -> None:
        """Assert what must always hold.

        Raises:
            AssertionError: naming what does not.
        """
        gateway = self.gateway
        invariants.check(gateway, self.config)
        recovered = recover(self.config.custody_bytes, map(decode_record, self.journal))
        assert list(map(encode_record, recovered.records())) == list(
            map(encode_record, gateway.custody.records())
        ), "the journal says the same"

    # --- the master ---------------------------------------------------------------------------

    def open_uplink(
        self, master_id: str = "m", heartbeat_s: float = 10.0, max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self.tell(events.UplinkOpened(master_id, heartbeat_s, max_message_bytes))

    def close_uplink(self) -> None:
        self.tell(events.UplinkClosed())

    def master(self, channel: int, *messages: AnyMessage) -> None:
        """Let the master say something on a channel."""
        self.tell(events.MasterSaid(channel, list(messages)))

    def take_up(self, kind: type[MessageT]) -> list[MessageT]:
        """Return and forget the messages of one kind for the master."""
        found: list[MessageT] = [message for message in self.up if isinstance(message, kind)]
        self.up = [message for message in self.up if not isinstance(message, kind)]
        return found

    def relayed(self, channel: int) -> list[AnyMessage]:
        """Return and forget what was said on a channel."""
        frames = [m for m in self.up if isinstance(m, Relayed) and m.channel == channel]
        self.up = [m for m in self.up if m not in frames]
        return [message for frame in frames for message in decode_batch(frame.data)]

    def take_in(self, lease_s: float = 35.0, heartbeat_s: float = 10.0) -> list[int]:
        """Let the master take in every device that asks; return the channels, custody left out."""
        channels = [opened.channel for opened in self.take_up(RelayOpen) if not opened.custody_of]
        for channel in channels:
            assert isinstance(self.relayed(channel)[0], Register)
            self.master(channel, Registered(1, heartbeat_s, lease_s, "m"))
        return channels

    # --- devices ------------------------------------------------------------------------------

    def connect(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> SessionId:
        """Let somebody dial."""
        self._sessions += 1
        session = SessionId(self._sessions)
        self.inboxes[session] = []
        self.tell(events.DeviceConnected(session, f"bench:{session}", max_message_bytes))
        self.tell(events.DeviceReady(session))
        return session

    def say(self, session: SessionId, *messages: AnyMessage) -> None:
        """Let a device say something."""
        self.tell(events.DeviceSaid(session, list(messages)))

    def device(
        self, name: str = "d1", max_message_bytes: int = MAX_MESSAGE_BYTES, **fields: Any
    ) -> SessionId:
        """Connect and register a device."""
        session = self.connect(max_message_bytes)
        self.say(session, a_register(name, **fields))
        return session

    def lose(self, session: SessionId) -> None:
        """Break a device's connection."""
        self.tell(events.DeviceGone(session, "the cable was pulled"))

    def fetch(self, session: SessionId) -> None:
        """Let a device's connection take a frame, and stop taking more."""
        self.tell(events.DeviceReady(session))

    def inbox(self, session: SessionId, kind: type[MessageT]) -> list[MessageT]:
        """Return and forget what a device was sent, of one kind."""
        found: list[MessageT] = [m for m in self.inboxes[session] if isinstance(m, kind)]
        self.inboxes[session] = [m for m in self.inboxes[session] if not isinstance(m, kind)]
        return found

    # --- time, disk and death -----------------------------------------------------------------

    def pass_time(self, seconds: float, *alive: SessionId, every_s: float = 5.0) -> None:
        """Let time pass, stopping at every deadline; these devices send a heartbeat now and then."""
        end = self.now + seconds
        while self.now < end:
            step = min(every_s, end - self.now) if alive else end - self.now
            target = self.now + step
            while (due := self.gateway.next_deadline()) is not None and due <= target:
                self.now = max(self.now, due)
                self.tell(events.Ticked())
            self.now = target
            for session in alive:
                self.say(session, Heartbeat())

    def sync(self) -> None:
        """Let the disk have everything."""
        self.synced = len(self.journal)
        self.tell(events.Synced(self.synced - self._before))

    def restart(self, *, power_cut: bool = False) -> None:
        """Kill the gateway and start it again; after a power cut only what was synced is there."""
        if power_cut:
            del self.journal[self.synced :]
        self.synced = len(self.journal)
        self.up.clear()
        self.inboxes.clear()
        self.closed.clear()
        self.done.clear()
        self._boot()

    def closes(self) -> list[RelayClose]:
        """Return and forget the channels that the gateway closed."""
        return self.take_up(RelayClose)
