"""A gateway: an agent process with the real gateway machine in it, as `gateway.runner` has it.

Events are handled as they come and their effects carried out at once; only what must survive a power cut
waits for the disk. The machine lives and dies with the agent's process, custody with the machine's flash.
"""

from __future__ import annotations

from typing import Final

from edgerm_core.agent import events as agent_events
from edgerm_core.codec import decode_batch, encode
from edgerm_core.config import GatewayConfig
from edgerm_core.errors import DecodeError
from edgerm_core.gateway import effects, events
from edgerm_core.gateway.custody import Custody, recover
from edgerm_core.gateway.link import REFUSAL_PART
from edgerm_core.gateway.records import decode_record, encode_record
from edgerm_core.gateway.runner import DISK_RETRY_S
from edgerm_core.gateway.standin import StandIn
from edgerm_core.gateway.state import Gateway
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.limits import JOURNAL_SYNC_S
from edgerm_core.messages import AnyMessage, Refused, RelayClose, Relayed
from edgerm_core.testing.simulator.agent_node import REWRITE_S, TIMER_SLACK_S, AgentNode, AgentPlan
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.disks import AgentDisk
from edgerm_core.testing.simulator.network import DOWN, Connection, Link, Side
from edgerm_core.testing.simulator.world import Failure, Timer, World

SYNC_S: Final = 0.02
"""How long it takes at most until the disk has what was written."""

FETCH_S: Final = 2.0
"""How long a blob takes to come from the master."""


class GatewayNode(AgentNode):
    """A gateway, from one process to the next.

    Parameters:
        config: its `[gateway]` section.
        custody_bytes: in place of the config's, which has a least size.

    Attributes:
        gateway: the machine of the process that runs; None: it takes no devices now.
        custody_disk: what outlives the process.
    """

    def __init__(
        self,
        world: World,
        plan: AgentPlan,
        link: Link,
        checks: Checks,
        config: GatewayConfig,
        custody_bytes: int,
    ) -> None:
        super().__init__(world, plan, link, checks)
        self.config = config
        self.custody_bytes = custody_bytes
        self.custody_disk = AgentDisk()
        self.gateway: Gateway | None = None
        self._gateway_luck = world.luck(f"gateway/{plan.name}")
        self._doors: dict[SessionId, Door] = {}
        self._last_door = 0
        self._uplink: SessionId | None = None
        self._records = 0
        self._due: Timer | None = None
        #: A file that is being replaced cannot be synced.
        self._disk_busy = False

    # --- life and death -----------------------------------------------------------------------

    def _is_set_up(self) -> None:
        """See `AgentNode._is_set_up`."""
        self.gateway = Gateway(self.config, AgentId(self.name), self.custody_on(self.custody_disk.read()))
        self._records = 0
        self._uplink = None
        self._disk_busy = False
        self._every(JOURNAL_SYNC_S, self._keep_custody)

    def kill(self) -> None:
        """See `AgentNode.kill`."""
        self._close_doors(silently=False)
        self.custody_disk.kill()
        self.checks.gateway_died(self)
        super().kill()

    def power_off(self, *, cleanly: bool) -> None:
        """See `AgentNode.power_off`."""
        if self.host.up:
            self._close_doors(silently=not cleanly)
            if cleanly:
                self.custody_disk.kill()
                self.custody_disk.sync()
            else:
                self.custody_disk.cut_power(self._gateway_luck)
            self.checks.gateway_died(self)
        super().power_off(cleanly=cleanly)

    def fill_disk(self, full: bool) -> None:
        """See `AgentNode.fill_disk`."""
        super().fill_disk(full)
        self.custody_disk.refuses = full

    def _close_doors(self, *, silently: bool) -> None:
        if self.gateway is not None:
            self.checks.custody_agrees(self)
        self.gateway = None
        doors, self._doors = self._doors, {}
        for door in doors.values():
            if silently:
                door.connection.vanish(DOWN)
            else:
                door.connection.close(DOWN, "the gateway is gone")
        if self._due is not None:
            self._due.cancel()
            self._due = None

    @property
    def process(self) -> int:
        """Number of the process that runs, or ran last."""
        return self._starts

    def custody(self) -> Custody:
        """Return what it answers for: as the machine knows it, or as the next process will find it."""
        if self.gateway is not None:
            return self.gateway.custody
        return self.custody_on(self.custody_disk.read())

    def custody_on(self, records: list[bytes]) -> Custody:
        """Return what records say."""
        return recover(self.custody_bytes, map(decode_record, records))

    # --- the uplink ---------------------------------------------------------------------------

    def _handled(self, event: agent_events.Event) -> None:
        """See `AgentNode._handled`; as `agent.runner._tell_gateway`."""
        if self.agent is None or self.gateway is None:
            return
        session = self.agent.session
        current = session.number if session.registered else None
        self._uplink_is(current, self.agent.master_id, session.heartbeat_s)
        if isinstance(event, agent_events.FrameReceived) and event.session == current:
            for message in event.messages:
                self._on_message(message)

    def _uplink_is(self, session: SessionId | None, master_id: str, heartbeat_s: float) -> None:
        if session == self._uplink:
            return
        if self._uplink is not None:
            self.tell(events.UplinkClosed())
        self._uplink = session
        if session is not None:
            self.tell(events.UplinkOpened(master_id, heartbeat_s))

    def _on_message(self, message: AnyMessage) -> None:
        if self._uplink is None:
            return
        if isinstance(message, RelayClose):
            self.tell(events.ChannelClosed(message.channel, message.reason))
        elif isinstance(message, Relayed):
            try:
                messages = decode_batch(message.data)
            except DecodeError as error:
                raise Failure(f"{self.name}: the master relayed what is no message: {error}") from error
            self.checks.master_ordered(self, message.channel, messages)
            self.tell(events.MasterSaid(message.channel, messages))

    # --- events and effects -------------------------------------------------------------------

    def tell(self, event: events.Event) -> None:
        """Let the machine handle an event, and carry out what comes of it."""
        gateway = self.gateway
        assert gateway is not None
        if self.world.telling:
            self.world.tell(self.name, f"gateway: {event}")
        orders = gateway.handle(event, self.clock())
        records = [encode_record(o.record) for o in orders if isinstance(o, effects.WriteRecord)]
        for record in records:
            self.world.story.mark(self.world.now, self.name, record)
        if records:
            self.custody_disk.append(records)
            self._records += len(records)
        self.checks.gateway_handled(self, event)
        for order in orders:
            self._carry_out_below(order)
        self._sync_soon()
        self._plan_tick()

    def _plan_tick(self) -> None:
        assert self.gateway is not None
        deadline = self.gateway.next_deadline()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if deadline is not None:
            at = max(deadline - self._base, self.world.now) + TIMER_SLACK_S
            self._due = self.world.at(at, lambda: self.tell(events.Ticked()))

    def _carry_out_below(self, order: effects.Effect) -> None:
        match order:
            case effects.SendUp(message):
                self.checks.gateway_tells(self, message)
                if self._session is not None:
                    self._session.send(message)
            case effects.SendDown(session, frame):
                if (door := self._doors.get(session)) is not None:
                    door.send(frame)
            case effects.CloseDevice():
                if (door := self._doors.get(order.session)) is not None:
                    door.close(order.reason, order.refused)
            case effects.FetchBlob(blob):
                process = self._starts

                def fetched() -> None:
                    if self.runs_as(process):
                        self.provides(blob)

                self.world.after(FETCH_S, fetched)
            case effects.Report(_, text):
                self.world.tell(self.name, f"gateway: {text}")
            case effects.ServeBlob() | effects.WriteRecord():
                pass

    # --- the disk -----------------------------------------------------------------------------

    def _sync_soon(self) -> None:
        """As `runner._keep_synced`: sync whenever a device waits for that."""
        if self._disk_busy or self.gateway is None or not self.gateway.unsynced:
            return
        disk, process, records = self.custody_disk, self._starts, self._records
        self._disk_busy = True
        disk.append([])  # Writes what an earlier call could not.
        behind, length = disk.behind, disk.length

        def over() -> None:
            if not self.runs_as(process):
                return
            self._disk_busy = False
            if behind:
                self._sync_soon()
                return
            disk.sync(length)
            self.tell(events.Synced(records))

        self.world.after(DISK_RETRY_S if behind else self._gateway_luck.random() * SYNC_S, over)

    def _keep_custody(self) -> None:
        """As `runner._keep_journal`."""
        if self._disk_busy or self.gateway is None:
            return
        disk, process = self.custody_disk, self._starts
        if disk.dirty:
            disk.sync()
        if disk.length > self.plan.compact_at:
            self._disk_busy = True
            content = disk.begin_rewrite(map(encode_record, self.gateway.records()))

            def end() -> None:
                if self.runs_as(process):
                    disk.end_rewrite(content)
                    self._disk_busy = False
                    self._sync_soon()

            self.world.after(REWRITE_S, end)

    # --- devices ------------------------------------------------------------------------------

    @property
    def listening(self) -> bool:
        """See `network.Server`."""
        return self.gateway is not None

    def accept(self, connection: Connection) -> Side:
        """See `network.Server`."""
        self._last_door += 1
        door = Door(self, SessionId(self._last_door), connection)
        self._doors[door.session] = door
        self.tell(events.DeviceConnected(door.session, connection.name, connection.quality.max_frame_bytes))
        door.ready_soon()
        return door

    def door_over(self, door: Door, reason: str) -> None:
        """A device's connection is over, whoever ended it."""
        if self._doors.pop(door.session, None) is not None:
            self.tell(events.DeviceGone(door.session, reason))


class Door:
    """One device's connection, as `gateway.link.DeviceLink`."""

    def __init__(self, node: GatewayNode, session: SessionId, connection: Connection) -> None:
        self.session = session
        self.connection = connection
        self._node = node
        self._process = node._starts
        self._closing = False
        #: Who has registered on it: its id, and the number of its stand-in.
        self._device = "", 0
        #: A frame waits for room; the machine gives no other one until then.
        self._full = False
        connection.on_room = self._room

    @property
    def _open(self) -> bool:
        return self._node.runs_as(self._process) and self.session in self._node._doors

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """See `network.Side`."""
        if not self._open or self._closing:
            return
        try:
            messages = decode_batch(data)
        except DecodeError as error:
            raise Failure(f"{self._node.name}: a device sent what is no message: {error}") from error
        self._node.checks.device_spoke(self._node, self._standin())
        self._node.tell(events.DeviceSaid(self.session, messages))

    def on_closed(self, connection: Connection, reason: str) -> None:
        """See `network.Side`."""
        if self._open:
            self._node.door_over(self, reason)

    def send(self, frame: bytes) -> None:
        """Send a frame, the only one until the next DeviceReady."""
        standin = self._standin()
        if standin is not None:  # It may have been given up in the same turn.
            self._device = standin.id, standin.number
        self._node.checks.gateway_says(self._node, *self._device, decode_batch(frame))
        self.connection.send(DOWN, frame)
        if len(self.connection.waiting) > 1:
            self._full = True  # As a CoAP session, which holds one frame until it is asked.
        else:
            self.ready_soon()

    def _standin(self) -> StandIn | None:
        gateway = self._node.gateway
        assert gateway is not None
        return next((s for s in gateway.standins.values() if s.session == self.session), None)

    def _room(self) -> None:
        if self._full:
            self._full = False
            self.ready_soon()

    def ready_soon(self) -> None:
        """Tell the machine that the connection takes a frame."""

        def ready() -> None:
            if self._open and not self._closing:
                self._node.tell(events.DeviceReady(self.session))

        self._node.world.after(0.0, ready)

    def close(self, reason: str, refused: Refused | None) -> None:
        """End the connection, telling the device why."""
        if self._closing:
            return
        self._closing = True
        if refused is not None:
            text = refused.message[: self.connection.quality.max_frame_bytes // REFUSAL_PART]
            self.connection.send(DOWN, encode(Refused(refused.code, text)))
        self.connection.close(DOWN, reason)

        def over() -> None:
            if self._open:
                self._node.door_over(self, reason)

        self._node.world.after(0.0, over)
