"""The channels inside the gateway's session with its master: one for each device, a few for custody.

A device that is connected here has a channel of its own, on which it is registered. Custody of one that
is not is handed over on a channel that carries nothing else, so that it does not seem to be here. At most
`REGISTRATION_WINDOW` of either kind are begun at the same time.

A device that was heard and had nothing to relay is named in the next of the gateway's own heartbeats.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from edgerm_core.codec import encode, encode_within
from edgerm_core.gateway.custody import Custody
from edgerm_core.gateway.effects import SendUp
from edgerm_core.gateway.standin import StandIn, Upstream
from edgerm_core.gateway.turn import Turn
from edgerm_core.ids import AgentId
from edgerm_core.limits import (
    CUSTODY_FRAME_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_HEARD_CHANNELS,
    MAX_MESSAGE_BYTES,
    REGISTRATION_WINDOW,
    RELAY_ENVELOPE_BYTES,
)
from edgerm_core.messages import Heartbeat, Message, RelayClose, Relayed, RelayOpen

HEARTBEAT: Final = ("heartbeat", 0, 0)

MAX_PEER_CHARS: Final = 128

MOMENT_S: Final = 0.001


class Uplink:
    """The channels.

    Parameters:
        turn: shared with the rest of the machine.
        custody: what is to be handed over.
        standins: the devices that are here.

    Attributes:
        is_open: whether a master listens.
        max_bytes: of a device's message that can be passed on; without a master, what the last one took.
    """

    def __init__(self, turn: Turn, custody: Custody, standins: Mapping[AgentId, StandIn]) -> None:
        self._turn = turn
        self._custody = custody
        self._standins = standins
        self.is_open = False
        self.max_bytes = MAX_MESSAGE_BYTES - RELAY_ENVELOPE_BYTES
        self._closed_at: float | None = None
        self._heartbeat_s = 0.0
        self._last_channel = 0
        #: Whose turn it will be, in order.
        self._queue: dict[AgentId, None] = {}
        self._devices: dict[int, StandIn] = {}
        self._custodies: dict[int, AgentId] = {}
        #: Channels that have not been answered yet.
        self._begun: set[int] = set()
        self._heard: set[int] = set()

    # --- the session --------------------------------------------------------------------------

    def opened(self, heartbeat_s: float, max_message_bytes: int) -> None:
        """A master listens: hand over what is in custody, and register every device that is here."""
        self.is_open = True
        self.max_bytes = max_message_bytes - RELAY_ENVELOPE_BYTES
        self._heartbeat_s = heartbeat_s
        self._turn.deadlines.set(HEARTBEAT, self._turn.now + heartbeat_s)
        for agent_id in self._custody.agents():
            if not self._is_here(agent_id):
                self._queue[agent_id] = None
        for agent_id in self._standins:
            if self._is_here(agent_id):
                self._queue[agent_id] = None
        self._begin()

    def closed(self) -> None:
        """Nobody listens any more."""
        self.is_open = False
        self._closed_at = self._turn.now
        self._turn.deadlines.cancel(HEARTBEAT)
        self._queue.clear()
        self._custodies.clear()
        self._begun.clear()
        self._heard.clear()
        for standin in self._devices.values():
            standin.channel = None
            standin.upstream = Upstream.CLOSED
        self._devices.clear()

    def away_s(self) -> float:
        """Return for how long no master has listened; 0: one does. At least a moment if none does."""
        if self.is_open:
            return 0.0
        if self._closed_at is None:
            self._closed_at = self._turn.now  # There was none since the gateway was started.
        return max(MOMENT_S, self._turn.now - self._closed_at)

    def heartbeat(self) -> None:
        """It is time to say which devices have been heard."""
        heard = sorted(self._heard)
        self._heard.clear()
        for start in range(0, len(heard), MAX_HEARD_CHANNELS):
            self._turn.emit(SendUp(Heartbeat(tuple(heard[start : start + MAX_HEARD_CHANNELS]))))
        self._turn.deadlines.set(HEARTBEAT, self._turn.now + self._heartbeat_s)

    # --- devices ------------------------------------------------------------------------------

    def register(self, standin: StandIn) -> None:
        """A device has registered here: tell the master, now or when it is its turn."""
        for channel, agent_id in list(self._custodies.items()):
            if agent_id == standin.id:
                self._close(channel, "the device is here again")
        if standin.channel is not None:
            self._register(standin.channel, standin)
        elif self.is_open:
            self._queue[standin.id] = None
            self._begin()

    def registered(self, standin: StandIn) -> None:
        """The master has taken a device in: say what it has said since, in order."""
        if standin.channel is None or standin.upstream is Upstream.OPEN:
            return
        standin.upstream = Upstream.OPEN
        self._begun.discard(standin.channel)
        if (changed := standin.untold()) is not None:
            self._send(standin.channel, [changed])
        self._send(standin.channel, self._held(standin.id))
        for updates in standin.passing.values():
            self._send(standin.channel, updates)
        self._begin()

    def say(self, standin: StandIn, message: Message) -> None:
        """Pass on what a device says, if the master listens to it."""
        if standin.channel is not None and standin.upstream is Upstream.OPEN:
            self._send(standin.channel, [message])

    def heard(self, standin: StandIn) -> None:
        """A device lives."""
        if standin.channel is not None and standin.upstream is Upstream.OPEN:
            self._heard.add(standin.channel)

    def leave(self, standin: StandIn, reason: str) -> None:
        """A device is not here any more. Idempotent."""
        if standin.channel is not None:
            self._close(standin.channel, reason)
        self._queue.pop(standin.id, None)
        self.hand_over(standin.id)

    def hand_over(self, agent_id: AgentId) -> None:
        """Hand over what is in custody of a device that is not here, if there is any. Idempotent."""
        if (
            self.is_open
            and self._custody.of(agent_id)
            and not self._is_here(agent_id)
            and agent_id not in self._custodies.values()
        ):
            self._queue[agent_id] = None
            self._begin()

    # --- channels -----------------------------------------------------------------------------

    def device_on(self, channel: int) -> StandIn | None:
        """Return whose channel it is."""
        return self._devices.get(channel)

    def custody_on(self, channel: int) -> AgentId | None:
        """Return whose custody is handed over on it."""
        return self._custodies.get(channel)

    def channel_closed(self, channel: int) -> None:
        """The master has closed a channel, or refused what is on it."""
        self._forget(channel)
        self._begin()

    def handed_over(self, channel: int) -> None:
        """Close a channel whose custody the master has taken over."""
        self._close(channel, "")
        self._begin()

    def _is_here(self, agent_id: AgentId) -> bool:
        standin = self._standins.get(agent_id)
        return standin is not None and standin.session is not None

    def _begin(self) -> None:
        while self.is_open and self._queue and len(self._begun) < REGISTRATION_WINDOW:
            agent_id = next(iter(self._queue))
            del self._queue[agent_id]
            standin = self._standins.get(agent_id)
            if standin is not None and standin.session is not None:
                if standin.channel is None:
                    self._open_device(standin)
            elif self._custody.of(agent_id):
                self._open_custody(agent_id)

    def _open_device(self, standin: StandIn) -> None:
        channel = standin.channel = self._new_channel()
        standin.upstream = Upstream.OPENING
        self._devices[channel] = standin
        age_s = max(0.0, self._turn.now - standin.registered_at)
        peer = standin.peer[:MAX_PEER_CHARS]
        self._turn.emit(SendUp(RelayOpen(channel, peer, standin.max_message_bytes, age_s)))
        standin.mailbox.drop_launches()
        self._register(channel, standin)

    def _register(self, channel: int, standin: StandIn) -> None:
        register = standin.registration()
        if len(encode(register)) > self.max_bytes:
            self._turn.report(
                f"device {standin.id} stays unknown to the master: its registration is larger than the "
                f"{self.max_bytes} bytes that the connection to the master carries for it",
                logging.ERROR,
            )
            self._close(channel, "its registration is too large for the gateway's connection")
            return
        standin.told = register.info
        self._send(channel, [register])

    def _open_custody(self, agent_id: AgentId) -> None:
        channel = self._new_channel()
        self._custodies[channel] = agent_id
        self._turn.emit(SendUp(RelayOpen(channel, custody_of=agent_id)))
        self._send(channel, self._held(agent_id))

    def _new_channel(self) -> int:
        self._last_channel += 1
        self._begun.add(self._last_channel)
        return self._last_channel

    def _held(self, agent_id: AgentId) -> list[Message]:
        return [held.update for updates in self._custody.of(agent_id).values() for held in updates]

    def _send(self, channel: int, messages: Iterable[Message]) -> None:
        self._heard.discard(channel)
        parts: list[bytes] = []
        size = 0
        frame_bytes = min(CUSTODY_FRAME_BYTES, self.max_bytes)
        for message in messages:
            data = encode_within(message, self.max_bytes)
            if data is None:
                kind = type(message).__name__
                text = f"a device's {kind} is larger than the connection to the master takes"
                self._turn.report(text, logging.ERROR)
                continue
            if parts and (size + len(data) > frame_bytes or len(parts) >= MAX_BATCH_MESSAGES):
                self._turn.emit(SendUp(Relayed(channel, b"".join(parts))))
                parts, size = [], 0
            parts.append(data)
            size += len(data)
        if parts:
            self._turn.emit(SendUp(Relayed(channel, b"".join(parts))))

    def _close(self, channel: int, reason: str) -> None:
        self._turn.emit(SendUp(RelayClose(channel, reason)))
        self._forget(channel)

    def _forget(self, channel: int) -> None:
        self._begun.discard(channel)
        self._heard.discard(channel)
        self._custodies.pop(channel, None)
        standin = self._devices.pop(channel, None)
        if standin is not None:
            standin.channel = None
            standin.upstream = Upstream.CLOSED
