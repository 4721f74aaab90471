"""The gateway as a state machine: told events, it answers with effects, and does nothing else.

No clock, no socket, no disk, no randomness. Its rules:

* A device is answered at once: Register and Heartbeat by the gateway itself, master or no master.
* While the master listens to a device, acknowledgements pass from end to end. While it does not, the
  gateway takes updates into custody and acknowledges them when they are on its disk.
* Orders wait in a mailbox until the device's connection takes them. They are levels, so one that is lost
  here is repeated by the master.
* What the master is told of a device is its last registration, kept up to date, what is in custody, and
  what it has been given to run and has said nothing of yet.
* A device is told with each heartbeat how long the master has been away: what its tasks do without the
  master (`stop_after_s`), they do behind a gateway, too.
* A gateway never acts on a task. All it says in a device's place is what the device has said, and that an
  order does not fit into the device's frames.

Roaming. A device (one id, one boot, one incarnation) was at gateway A and registers with B. Whatever
happens, the master hears of every end, and no attempt runs twice:

    what happens                             what follows
    ---------------------------------------  ----------------------------------------------------------
    A, B connected                           the master replaces A's channel by B's; A drops its stand-in.
                                             SESSION_REPLACED stays at A: for the device, which has moved,
                                             it would mean to stop for good
    A cut off; B registers the device        as above as soon as A is back: A's channel is older (`age_s`),
                                             so the master closes it, and B's goes on
    A cut off, with orders in its mailbox    the master sees at B that they are not confirmed, and sends
                                             them to B. A's copies are never asked for
    A cut off, with an end in custody that   the master misses the attempt in B's registration of the same
    the device has forgotten                 incarnation, and repeats its Launch; the device answers with
                                             its last words. A's update is known already when it comes, or
                                             comes first and makes the Launch needless
    … the device has restarted in between    nobody left remembers but A: the attempt counts as lost, and
                                             another one is made. A's update is then news of an old
                                             attempt, or in time, and counts
    A cut off, with RUNNING in custody       the device reports RUNNING at B; A's update is known by then,
                                             or counts as the next one
    A and B cut off                          each takes custody of what it is told. The numbers order it:
                                             the master ignores what it has heard a later one than
    the device goes back to A                it registers there: its new age is 0, and B's channel goes
    A killed, and started again              its custody is on its disk; its stand-ins come back by the
                                             devices' own registrations
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgerm_core.codec import encode
from edgerm_core.config import GatewayConfig
from edgerm_core.errors import SpecError
from edgerm_core.gateway import events
from edgerm_core.gateway.custody import Custody, Held
from edgerm_core.gateway.effects import CloseDevice, Effect, FetchBlob, SendDown, ServeBlob
from edgerm_core.gateway.mailbox import Mail
from edgerm_core.gateway.records import Record
from edgerm_core.gateway.standin import StandIn
from edgerm_core.gateway.turn import Turn
from edgerm_core.gateway.uplink import Uplink
from edgerm_core.ids import AgentId, SessionId, TaskId, check_name
from edgerm_core.limits import (
    GREETING_TIMEOUT_S,
    LEASE_HEARTBEATS,
    MAX_PASSING_UPDATES,
)
from edgerm_core.messages import (
    Acknowledge,
    AnyMessage,
    BlobGet,
    Heartbeat,
    HeartbeatAck,
    Inventory,
    Kill,
    Launch,
    LogData,
    LogGet,
    LogStream,
    RefusalCode,
    Refused,
    Register,
    Registered,
    StatusUpdate,
    Usage,
    negotiate,
)
from edgerm_core.tasks import Reason, TaskState


class _Device:
    """A device's connection. It has a stand-in once it has registered."""

    __slots__ = ("id", "max_message_bytes", "peer", "ready", "standin")

    def __init__(self, event: events.DeviceConnected) -> None:
        self.id = event.session
        self.peer = event.peer
        self.max_message_bytes = event.max_message_bytes
        #: It can take a frame, and has not been given one.
        self.ready = False
        self.standin: StandIn | None = None


class Gateway:
    """The gateway.

    Parameters:
        config: the `[gateway]` section.
        own_id: the gateway agent's id, which no device may have.
        custody: what earlier runs left.

    Attributes:
        standins: the devices that are here, or were until their lease ends.
    """

    def __init__(self, config: GatewayConfig, own_id: AgentId, custody: Custody) -> None:
        self._config = config
        self._own_id = own_id
        self.custody = custody
        self.turn = Turn()
        self.standins: dict[AgentId, StandIn] = {}
        self.uplink = Uplink(self.turn, custody, self.standins)
        self._devices: dict[SessionId, _Device] = {}
        self._last_standin = 0
        self._by_number: dict[int, StandIn] = {}
        #: Acknowledgements that wait for the disk: the record they speak of, and whose they are.
        self._unsynced: deque[tuple[int, int, Acknowledge]] = deque()
        self._synced = 0

    @property
    def unsynced(self) -> bool:
        """Whether a device waits for something to be on the disk."""
        return bool(self._unsynced)

    def handle(self, event: events.Event, now: float) -> list[Effect]:
        """Take one event and return what is to be done about it, in order.

        The only way to change the gateway's state.

        Parameters:
            now: seconds; not less than in the call before.
        """
        assert now >= self.turn.now, "time goes backwards"
        self.turn.now = now
        _HANDLERS[type(event)](self, event)
        effects, self.turn.effects = self.turn.effects, []
        return effects

    def next_deadline(self) -> float | None:
        """Return when a Ticked is due at the latest; None: nothing happens by itself."""
        return self.turn.deadlines.next()

    def records(self) -> Iterable[Record]:
        """Yield records that say the same as all that were written so far."""
        return self.custody.records()

    # --- time ---------------------------------------------------------------------------------

    def _on_ticked(self, event: events.Ticked) -> None:
        for name, number, _ in self.turn.deadlines.pop_due(self.turn.now):
            if name == "heartbeat":
                self.uplink.heartbeat()
            elif name == "greeting":
                device = self._devices.get(SessionId(number))
                if device is not None:
                    text = f"no greeting within {GREETING_TIMEOUT_S:g} s"
                    self._refuse(device, RefusalCode.UNEXPECTED, text)
            else:
                self._on_lease(self._by_number[number])

    def _on_lease(self, standin: StandIn) -> None:
        """Look whether the lease has really run out, and come back later if it was renewed."""
        ends_at = standin.heard_at + standin.lease_s
        if ends_at > self.turn.now:
            self.turn.deadlines.set(("lease", standin.number, 0), ends_at)
            return
        silent_s = self.turn.now - standin.heard_at
        self.turn.report(f"device {standin.id} has been silent for {silent_s:.0f} s")
        self._drop(standin, f"silent for {silent_s:.0f} s, longer than its lease")

    # --- the uplink ---------------------------------------------------------------------------

    def _on_uplink_opened(self, event: events.UplinkOpened) -> None:
        if event.master_id != self.custody.master_id:
            if self.custody.master_id:
                # Its books number tasks anew: what is known here would be taken for others.
                text = "the master has other books than before; devices begin anew, custody is void"
                self.turn.report(text, logging.WARNING)
                for standin in list(self.standins.values()):
                    self._drop(standin, "the master has other books than before")
                self._unsynced.clear()
            self.turn.write(self.custody.clear(event.master_id))
        self.uplink.opened(event.heartbeat_s, event.max_message_bytes)

    def _on_uplink_closed(self, event: events.UplinkClosed) -> None:
        if not self.uplink.is_open:
            return
        self.uplink.closed()
        for standin in self.standins.values():
            self._end_logs(standin)
            passing = [update for updates in standin.passing.values() for update in updates]
            standin.passing.clear()
            for update in passing:
                self._take_custody(standin, update)

    def _on_master_said(self, event: events.MasterSaid) -> None:
        agent_id = self.uplink.custody_on(event.channel)
        for message in event.messages:
            standin = self.uplink.device_on(event.channel)
            if standin is not None:
                handler = _FROM_MASTER.get(type(message))
                if handler is not None:
                    handler(self, standin, message)
            elif agent_id is not None and isinstance(message, Acknowledge):
                self._release(agent_id, message)
        if agent_id is not None and not self.custody.of(agent_id):
            self.uplink.handed_over(event.channel)

    def _on_channel_closed(self, event: events.ChannelClosed) -> None:
        standin = self.uplink.device_on(event.channel)
        self.uplink.channel_closed(event.channel)
        if standin is not None:
            # Nobody knows what was lost with it: the device registers again, which settles everything.
            self._drop(standin, f"the master ended the session: {event.reason}")

    # --- what the master says to a device -----------------------------------------------------

    def _master_registered(self, standin: StandIn, message: Registered) -> None:
        self._set_cadence(standin, message.heartbeat_s, message.lease_s)
        self.uplink.registered(standin)

    def _master_heartbeat_ack(self, standin: StandIn, message: HeartbeatAck) -> None:
        if message.heartbeat_s > 0 or message.lease_s > 0:
            self._set_cadence(
                standin, message.heartbeat_s or standin.heartbeat_s, message.lease_s or standin.lease_s
            )

    def _set_cadence(self, standin: StandIn, heartbeat_s: float, lease_s: float) -> None:
        if (standin.heartbeat_s, standin.lease_s) != (heartbeat_s, lease_s):
            standin.heartbeat_s, standin.lease_s = heartbeat_s, lease_s
            self._post(standin, HeartbeatAck(heartbeat_s, lease_s, self.uplink.away_s()))
            self.turn.deadlines.set(("lease", standin.number, 0), standin.heard_at + lease_s)

    def _master_acknowledge(self, standin: StandIn, message: Acknowledge) -> None:
        self._release(standin.id, message)
        if standin.acknowledged(message):
            self._post(standin, message)

    def _master_launch(self, standin: StandIn, message: Launch) -> None:
        report = standin.tasks.get((message.task_id, message.attempt))
        if report is not None and report.state.terminal:
            return  # It has ended. A device that was restarted might not know, and run it again.
        size = len(encode(message))
        if size > standin.max_message_bytes:
            text = f"its launch has {size} bytes, the device takes {standin.max_message_bytes}"
            dropped = StatusUpdate(
                message.task_id, message.attempt, 1, TaskState.DROPPED, Reason.LAUNCH_TOO_LARGE, text
            )
            self.uplink.say(standin, dropped)
            return
        if self._post(standin, message):
            for blob in (message.implementation.blob, *(file.blob for file in message.files)):
                if blob is not None:
                    self.turn.emit(FetchBlob(blob))

    def _master_log_get(self, standin: StandIn, message: LogGet) -> None:
        if message.cancel:
            standin.logs.discard(message.request_id)
        if self._post(standin, message):
            if not message.cancel:
                standin.logs.add(message.request_id)
        elif not message.cancel:
            text = "too much waits for the device already"
            self.uplink.say(standin, LogData(message.request_id, 0, end=True, problem=text))

    def _master_refused(self, standin: StandIn, message: Refused) -> None:
        assert standin.channel is not None
        self.uplink.channel_closed(standin.channel)
        text = f"the master refused device {standin.id} ({message.code}): {message.message}"
        if message.code == RefusalCode.SESSION_REPLACED:
            # What was replaced is the gateway's channel. The device has moved on; one that is here after
            # all dials again, and replaces the other.
            self.turn.report(text)
            self._drop(standin, message.message)
        else:
            self.turn.report(text, logging.WARNING)
            self._drop(standin, message.message, message)

    def _release(self, agent_id: AgentId, message: Acknowledge) -> None:
        record = self.custody.release(agent_id, (message.task_id, message.attempt), message.seq)
        if record is not None:
            self.turn.write(record)

    # --- devices come and go ------------------------------------------------------------------

    def _on_device_connected(self, event: events.DeviceConnected) -> None:
        self._devices[event.session] = _Device(event)
        self.turn.deadlines.set(("greeting", event.session, 0), self.turn.now + GREETING_TIMEOUT_S)

    def _on_device_gone(self, event: events.DeviceGone) -> None:
        device = self._devices.get(event.session)
        if device is None:
            return
        self._forget_device(device)
        standin = device.standin
        if standin is not None:
            # It may be back in a moment, and its mail waits. The master is told how it is.
            standin.session = None
            self._end_logs(standin)
            standin.mailbox.connection_ended()
            self.uplink.leave(standin, f"the device's connection ended: {event.reason}")

    def _on_device_ready(self, event: events.DeviceReady) -> None:
        device = self._devices.get(event.session)
        if device is not None:
            device.ready = True
            self._deliver(device)

    def _on_device_said(self, event: events.DeviceSaid) -> None:
        for message in event.messages:
            device = self._devices.get(event.session)
            if device is None:
                return
            standin = device.standin
            if standin is not None:
                standin.heard_at = self.turn.now
                self.uplink.heard(standin)
            if isinstance(message, Register):
                self._register(device, message)
                continue
            handler = _FROM_DEVICE.get(type(message))
            if standin is None or handler is None:
                text = f"a gateway takes no {type(message).__name__}"
                if standin is None:
                    text = f"{type(message).__name__} before Register"
                self._refuse(device, RefusalCode.UNEXPECTED, text)
                return
            handler(self, standin, message)

    def _on_blob_answered(self, event: events.BlobAnswered) -> None:
        device = self._devices.get(event.session)
        if device is not None and device.standin is not None:
            self._post(device.standin, event.message)

    def _register(self, device: _Device, register: Register) -> None:
        version = negotiate(register.versions)
        problem = self._problem(device, register, version)
        if problem is not None:
            self._refuse(device, *problem)
            return
        agent_id = register.info.id
        standin = self.standins.get(agent_id)
        if standin is not None and standin.incarnation != register.incarnation:
            if standin.session is not None and device.id < standin.session:
                # What the process before it said has been on its way for long.
                text = "a newer connection of this agent is here"
                self._refuse(device, RefusalCode.SESSION_REPLACED, text)
                return
            text = "a newer process with this agent's id took over"
            device.standin = None
            self._drop(standin, text, Refused(RefusalCode.SESSION_REPLACED, text), spare=device)
            standin = None
        if standin is None:
            self.turn.report(f"device {agent_id} is here, from {device.peer}")
            self._last_standin += 1
            standin = StandIn(self._last_standin, register, *self._cadence(register))
            self.standins[agent_id] = self._by_number[standin.number] = standin
        elif standin.session not in (None, device.id):
            assert standin.session is not None
            self._close(self._devices[standin.session], "a newer connection took over")
            self._end_logs(standin)
        max_bytes = min(device.max_message_bytes, register.max_message_bytes or device.max_message_bytes)
        if standin.max_message_bytes != max_bytes and standin.channel is not None:
            self.uplink.leave(standin, "the device takes frames of another size now")
        standin.max_message_bytes = max_bytes
        standin.session, standin.peer = device.id, device.peer
        standin.registered_at = standin.heard_at = self.turn.now
        for report in register.tasks:
            if report.last_seq is not None:
                key = (report.task_id, report.attempt)
                self.turn.write(*self.custody.drop_lost(agent_id, key, report.last_seq))
        standin.registers(register, self.custody.of(agent_id))
        device.standin = standin
        self.turn.deadlines.cancel(("greeting", device.id, 0))
        self.turn.deadlines.set(("lease", standin.number, 0), self.turn.now + standin.lease_s)
        assert version is not None
        away_s = self.uplink.away_s()
        answer = Registered(version, standin.heartbeat_s, standin.lease_s, self.custody.master_id, away_s)
        self._post(standin, answer)
        self.uplink.register(standin)

    def _problem(
        self, device: _Device, register: Register, version: int | None
    ) -> tuple[RefusalCode, str] | None:
        """Return why a device cannot be taken in, or None."""
        info = register.info
        if version is None:
            low, high = register.versions
            text = f"no common protocol version: the agent speaks {low} to {high}; upgrade the older side"
            return RefusalCode.VERSION, text
        try:
            check_name(info.id, "agent id")
        except SpecError as error:
            return RefusalCode.MALFORMED, str(error)
        if device.standin is not None and device.standin.id != info.id:
            return RefusalCode.UNEXPECTED, f"this connection has registered as {device.standin.id}"
        if len(encode(register)) > self.uplink.max_bytes:
            return RefusalCode.LIMIT, f"a registration has at most {self.uplink.max_bytes} bytes"
        if info.id == self._own_id:
            text = f"{info.id} is the id of the gateway itself: was its data directory copied?"
            return RefusalCode.DUPLICATE_AGENT, text
        standin = self.standins.get(info.id)
        if standin is None:
            if len(self.standins) >= self._config.max_devices:
                text = f"this gateway holds its limit of {self._config.max_devices} devices"
                return RefusalCode.LIMIT, text
        elif standin.session not in (None, device.id) and standin.boot_id != register.boot_id:
            text = (
                f"agent {info.id} is connected from {standin.peer}, on another machine, or on this one "
                f"before it was rebooted: that passes within {standin.lease_s:.0f} s; otherwise a data "
                f"directory was copied, and each agent needs its own"
            )
            return RefusalCode.DUPLICATE_AGENT, text
        if not self.custody.master_id:
            # A device with tasks of a master it knows would take no master for another one.
            return RefusalCode.NO_MASTER, "this gateway has not met its master yet"
        return None

    def _cadence(self, register: Register) -> tuple[float, float]:
        """Return heartbeat and lease for a device while the master has not said."""
        constrained = register.info.attributes.get("link.class") == "constrained"
        config = self._config
        heartbeat_s = config.heartbeat_constrained_s if constrained else config.heartbeat_s
        return heartbeat_s, heartbeat_s * LEASE_HEARTBEATS + config.lease_grace_s

    def _drop(
        self,
        standin: StandIn,
        reason: str,
        refused: Refused | None = None,
        spare: _Device | None = None,
    ) -> None:
        """Stand in for a device no longer; what is in custody is handed over all the same.

        Parameters:
            spare: a connection of the device that goes on.
        """
        del self.standins[standin.id], self._by_number[standin.number]
        self.turn.deadlines.cancel(("lease", standin.number, 0))
        device = self._devices.get(standin.session) if standin.session is not None else None
        if device is not None and device is not spare:
            self._close(device, reason, refused)
        self.uplink.leave(standin, reason)

    # --- what a device says -------------------------------------------------------------------

    def _device_heartbeat(self, standin: StandIn, message: Heartbeat) -> None:
        self._post(standin, HeartbeatAck(away_s=self.uplink.away_s()))

    def _device_inventory(self, standin: StandIn, message: Inventory) -> None:
        standin.changes(message)
        self.uplink.say(standin, message)

    def _device_log_data(self, standin: StandIn, message: LogData) -> None:
        if message.request_id in standin.logs:
            if message.end:
                standin.logs.discard(message.request_id)
            self.uplink.say(standin, message)

    def _device_blob_get(self, standin: StandIn, message: BlobGet) -> None:
        assert standin.session is not None
        self.turn.emit(ServeBlob(standin.session, message))

    def _device_usage(self, standin: StandIn, message: Usage) -> None:
        self.uplink.say(standin, message)

    def _device_update(self, standin: StandIn, update: StatusUpdate) -> None:
        key = (update.task_id, update.attempt)
        held = self.custody.find(standin.id, key, update.seq)
        if held is not None:
            if held.number <= self._synced:
                self._post(standin, _acknowledge(held))
            return
        passing = standin.passing.get(key, [])
        if any(known.seq >= update.seq for known in passing):
            return  # It is on its way.
        if not self.uplink.is_open:
            self._take_custody(standin, update)
        elif standin.passing_count() < MAX_PASSING_UPDATES:
            standin.says(update)
            standin.passing.setdefault(key, []).append(update)
            self.uplink.say(standin, update)

    # --- custody ------------------------------------------------------------------------------

    def _take_custody(self, standin: StandIn, update: StatusUpdate) -> None:
        held, records = self.custody.take(standin.id, update)
        number = self.turn.write(*records)
        if held is None:
            return  # The device keeps it, and will say it again.
        standin.says(update)
        held.number = number
        # The device is told as soon as the disk has it.
        self._unsynced.append((number, standin.number, _acknowledge(held)))

    def _on_synced(self, event: events.Synced) -> None:
        self._synced = max(self._synced, event.records)
        while self._unsynced and self._unsynced[0][0] <= self._synced:
            _, standin_number, message = self._unsynced.popleft()
            # Of a new process of the device that would acknowledge other updates of the same numbers.
            if (standin := self._by_number.get(standin_number)) is not None:
                self._post(standin, message)

    # --- connections --------------------------------------------------------------------------

    def _post(self, standin: StandIn, message: Mail) -> bool:
        """Put a message into a device's mailbox; return whether there was room."""
        posted = standin.mailbox.put(message)
        if standin.session is not None:
            self._deliver(self._devices[standin.session])
        return posted

    def _deliver(self, device: _Device) -> None:
        if device.ready and device.standin is not None and device.standin.session == device.id:
            frame = device.standin.mailbox.take(device.standin.max_message_bytes)
            if frame is not None:
                device.ready = False
                self.turn.emit(SendDown(device.id, frame))

    def _end_logs(self, standin: StandIn) -> None:
        """Nobody follows a device's logs any more, or the device does not send them any more."""
        for request_id in sorted(standin.logs):
            text = "the device lost its connection"
            self.uplink.say(standin, LogData(request_id, 0, end=True, problem=text))
            if not self.uplink.is_open:
                self._post(standin, LogGet(request_id, _NO_TASK, LogStream.STDOUT, cancel=True))
        standin.logs.clear()

    def _refuse(self, device: _Device, code: RefusalCode, text: str) -> None:
        self.turn.report(f"refused {device.peer} ({code}): {text}")
        standin = device.standin
        if standin is not None and standin.session == device.id:
            standin.session = None
            self.uplink.leave(standin, text)
        self._close(device, text, Refused(code, text))

    def _close(self, device: _Device, reason: str, refused: Refused | None = None) -> None:
        self._forget_device(device)
        self.turn.emit(CloseDevice(device.id, reason, refused))

    def _forget_device(self, device: _Device) -> None:
        del self._devices[device.id]
        self.turn.deadlines.cancel(("greeting", device.id, 0))


def _acknowledge(held: Held) -> Acknowledge:
    return Acknowledge(held.update.task_id, held.update.attempt, held.update.seq)


_NO_TASK: Final = TaskId(0)
"""Only the request id counts in a cancel."""

_FROM_MASTER: Final[dict[type[AnyMessage], Callable[[Gateway, StandIn, Any], object]]] = {
    Registered: Gateway._master_registered,
    HeartbeatAck: Gateway._master_heartbeat_ack,
    Acknowledge: Gateway._master_acknowledge,
    Launch: Gateway._master_launch,
    Kill: Gateway._post,
    LogGet: Gateway._master_log_get,
    Refused: Gateway._master_refused,
}

_FROM_DEVICE: Final[dict[type[AnyMessage], Callable[[Gateway, StandIn, Any], None]]] = {
    Heartbeat: Gateway._device_heartbeat,
    Inventory: Gateway._device_inventory,
    StatusUpdate: Gateway._device_update,
    LogData: Gateway._device_log_data,
    BlobGet: Gateway._device_blob_get,
    Usage: Gateway._device_usage,
}

_HANDLERS: Final[dict[type[Any], Callable[[Gateway, Any], None]]] = {
    events.Ticked: Gateway._on_ticked,
    events.UplinkOpened: Gateway._on_uplink_opened,
    events.UplinkClosed: Gateway._on_uplink_closed,
    events.MasterSaid: Gateway._on_master_said,
    events.ChannelClosed: Gateway._on_channel_closed,
    events.DeviceConnected: Gateway._on_device_connected,
    events.DeviceSaid: Gateway._on_device_said,
    events.DeviceReady: Gateway._on_device_ready,
    events.DeviceGone: Gateway._on_device_gone,
    events.BlobAnswered: Gateway._on_blob_answered,
    events.Synced: Gateway._on_synced,
}
