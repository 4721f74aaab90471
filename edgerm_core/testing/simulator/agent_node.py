"""An agent process around the real agent machine, as `agent.runner` is: same batches, same order.

    take the events that have come, let the machine handle them, append all records, then act

A process lives from `start` until it is killed or its machine loses power; the disk and the host outlive
it. Whatever was in its memory, its outbox included, does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from edgerm_core.agent import effects, events
from edgerm_core.agent.executors import FINGERPRINT_EVERY_S
from edgerm_core.agent.link import MAX_OUTBOX_MESSAGES, frames
from edgerm_core.agent.records import decode_record, encode_record
from edgerm_core.agent.recovery import recover
from edgerm_core.agent.state import Agent
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Attributes
from edgerm_core.codec import decode_batch
from edgerm_core.errors import DecodeError
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.limits import GREETING_TIMEOUT_S, HANDLE_BATCH_EVENTS, JOURNAL_SYNC_S, SESSION_INBOX_FRAMES
from edgerm_core.messages import Message
from edgerm_core.resources import Device, Resources
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.disks import AgentDisk
from edgerm_core.testing.simulator.executions import Execution
from edgerm_core.testing.simulator.executors import SURVIVES, Host
from edgerm_core.testing.simulator.network import UP, Connection, Link, LinkQuality, Server
from edgerm_core.testing.simulator.world import Failure, Timer, World

TIMER_SLACK_S: Final = 1e-5
"""So that a clock which starts from another number has reached a deadline when its timer fires."""

REWRITE_S: Final = 0.05
"""How long writing the journal anew takes."""


class AgentPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent and its machine.

    Attributes:
        name: of both.
        resources: what it offers, as in the config.
        devices: what is plugged in, all of it.
        attributes: facts for constraints.
        link: its way to the master.
        set_up_s: from the start of the process until it dials.
        compact_at: records in its journal at which that is written anew.
        max_tasks: as in the config.
        gateway: whether it accepts devices.
        via: whom it dials in turn, gateways or the master (`m`), as in the config; none: the master.
    """

    name: str
    resources: str = "cpus:4;mem:1024;ports:[31000-31009]"
    devices: tuple[Device, ...] = ()
    attributes: Attributes = {}
    link: LinkQuality = LinkQuality()
    set_up_s: float = 0.3
    compact_at: int = 200
    max_tasks: int = 100
    gateway: bool = False
    via: tuple[str, ...] = ()


class AgentNode:
    """An agent, from one process to the next.

    Attributes:
        agent: the machine of the process that runs; None between two.
        disk, host: what outlives the process.
        servers: what each name in its plan's `via` stands for; set by the cluster.
    """

    def __init__(self, world: World, plan: AgentPlan, link: Link, checks: Checks) -> None:
        self.world = world
        self.plan = plan
        self.name = plan.name
        self.link = link
        self.checks = checks
        self.disk = AgentDisk()
        self.host = Host(world, plan.name, checks.run_begins)
        self.luck = world.luck(f"agent/{plan.name}")
        self.cache: set[bytes] = set()
        self.agent: Agent | None = None
        self.refused: str | None = None
        self.servers: Callable[[str], Server] | None = None
        self._starts = 0
        self._base = 0.0
        self._events: deque[events.Event] = deque()
        self._executions: dict[events.RunId, Execution] = {}
        self._session: AgentSession | None = None
        self._turn_due = False
        self._deadline: Timer | None = None
        self._fingerprints: tuple[Fingerprint, ...] = ()

    # --- life and death -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin a process, if the machine is up and none runs."""
        if self.agent is not None or not self.host.up:
            return
        self._starts += 1
        self.refused = None
        # As `anchored_clock`: the wall clock at the start, and from then on monotonic.
        self._base = self.host.wall() - self.world.now
        recovered = recover(map(decode_record, self.disk.read()))
        self._fingerprints = self._ask_executors()
        self.agent = Agent(
            self.info(),
            boot_id=f"{self.name}-boot-{self.host.boots}",
            incarnation=f"{self.name}-{self._starts}",
            masters=max(1, len(self.plan.via)),
            max_tasks=self.plan.max_tasks,
            recovered=recovered,
        )
        self.world.tell(self.name, f"starts, with {len(recovered.runs)} attempts on record")
        process = self._starts

        def set_up() -> None:
            if not self.runs_as(process):
                return
            self.host.sweep([run.handle for run in recovered.runs.values() if run.handle is not None])
            self._is_set_up()
            self.post(events.InventoryChanged(self.info()))
            self.post(events.Began())
            self._every(JOURNAL_SYNC_S, self._keep_journal)
            self._every(FINGERPRINT_EVERY_S, self._keep_fingerprints)

        self.world.after(self.plan.set_up_s * (0.5 + self.luck.random()), set_up)

    def _is_set_up(self) -> None:
        """The process is about to dial."""

    def runs_as(self, process: int) -> bool:
        """Return whether that process is the one that runs."""
        return self.agent is not None and self._starts == process

    def _every(self, seconds: float, call: object) -> None:
        process = self._starts

        def again() -> None:
            if self.runs_as(process):
                call()  # type: ignore[operator]
                self.world.after(seconds, again)

        self.world.after(seconds, again)

    def kill(self) -> None:
        """The process dies at once."""
        if self.agent is None:
            return
        self.checks.agent_dies(self)
        if self._session is not None:
            self._session.die()
        self._forget_process()
        lost = self.disk.kill()
        self.world.tell(self.name, f"is killed, and loses {lost} records" if lost else "is killed")
        if lost:
            self.checks.records_were_lost(self)
        self.host.agent_died()

    def power_off(self, *, cleanly: bool) -> None:
        """The machine goes off: in good order, or by losing its power."""
        if not self.host.up:
            return
        if self.agent is not None:
            self.checks.agent_dies(self)
            if self._session is not None:
                if cleanly:
                    self._session.die()
                else:
                    self._session.vanish()
            self._forget_process()
        if cleanly:
            lost = self.disk.kill()
            self.disk.sync()
        else:
            lost = self.disk.cut_power(self.luck)
        if lost:
            self.checks.records_were_lost(self)
        self.world.tell(
            self.name, f"{'is shut down' if cleanly else 'loses its power'}, and {lost} records"
        )
        self.host.power_off()

    def power_on(self) -> None:
        """The machine boots."""
        if not self.host.up:
            self.host.power_on()

    def _forget_process(self) -> None:
        self.agent = None
        self._session = None
        self._events.clear()
        for execution in self._executions.values():
            execution.die()
        self._executions.clear()
        self._turn_due = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- what it says about itself ------------------------------------------------------------

    @property
    def totals(self) -> Resources:
        """What it has when everything is plugged in."""
        slots = {each.id: each.slots for each in self.plan.devices}
        return msgspec.structs.replace(Resources.parse(self.plan.resources), devices=slots)

    def info(self) -> AgentInfo:
        """Return what it has now."""
        devices = tuple(each for each in self.plan.devices if each.id not in self.host.unplugged)
        totals = msgspec.structs.replace(
            Resources.parse(self.plan.resources), devices={each.id: each.slots for each in devices}
        )
        attributes: Attributes = {"agent": self.name, **self.plan.attributes}
        return AgentInfo(
            AgentId(self.name),
            self.name,
            totals,
            attributes,
            devices,
            self._fingerprints,
            self.plan.max_tasks,
        )

    def _ask_executors(self) -> tuple[Fingerprint, ...]:
        return tuple(
            Fingerprint(
                name,
                "1",
                name not in self.host.sick,
                "it is not well" if name in self.host.sick else "",
                {"survives_agent_restart": survives},
            )
            for name, survives in SURVIVES.items()
        )

    def _keep_fingerprints(self) -> None:
        old, self._fingerprints = self._fingerprints, self._ask_executors()
        if old != self._fingerprints:
            self.post(events.InventoryChanged(self.info()))

    def devices_changed(self) -> None:
        """Something was plugged in or unplugged."""
        if self.agent is not None:
            self.post(events.InventoryChanged(self.info()))

    def fill_disk(self, full: bool) -> None:
        """Let its disk refuse what is written, or take it again."""
        self.disk.refuses = full

    def slots(self, device: str) -> int:
        """Return how many runs may hold it at once."""
        return next(each.slots for each in self.plan.devices if each.id == device)

    # --- the loop -----------------------------------------------------------------------------

    def clock(self) -> float:
        """Return the time the machine is told."""
        return self._base + self.world.now

    def post(self, event: events.Event) -> None:
        """Let the machine handle an event with the next batch."""
        self._events.append(event)
        self._wake(self.luck.random() * 0.002)

    def _wake(self, delay_s: float) -> None:
        if self._turn_due:
            return
        self._turn_due = True
        process = self._starts

        def turn() -> None:
            if self.runs_as(process):
                self._turn_due = False
                self._turn()

        self.world.after(delay_s, turn)

    def _turn(self) -> None:
        agent = self.agent
        assert agent is not None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        now = self.clock()
        orders: list[effects.Effect] = []
        for _ in range(min(len(self._events), HANDLE_BATCH_EVENTS)):
            event = self._events.popleft()
            orders += agent.handle(event, now)
            self.checks.agent_handled(self, event)
            self._handled(event)
            if self._session is not None and isinstance(event, events.FrameReceived):
                self._session.handled(event.session)
        deadline = agent.next_deadline()
        if deadline is not None and deadline <= now:
            orders += agent.handle(events.Ticked(), now)
            self.checks.agent_handled(self, events.Ticked())
        payloads = [encode_record(o.record) for o in orders if isinstance(o, effects.WriteRecord)]
        for payload in payloads:
            self.world.story.mark(self.world.now, self.name, payload)
        self.disk.append(payloads)
        for order in orders:
            if not isinstance(order, effects.WriteRecord):
                self._carry_out(order)
        if self._events:
            self._wake(0.0)
            return
        deadline = agent.next_deadline()
        if deadline is not None:
            at = max(deadline - self._base, self.world.now) + TIMER_SLACK_S
            self._deadline = self.world.at(at, lambda: self._wake(0.0))

    def _handled(self, event: events.Event) -> None:
        """The machine has handled an event; its orders have not been carried out."""

    def _carry_out(self, order: effects.Effect) -> None:
        match order:
            case effects.Send():
                if self._session is not None:
                    self._session.send(order.message)
            case effects.StartRun() | effects.RecoverRun():
                if self.world.telling:
                    verb = "starts" if isinstance(order, effects.StartRun) else "recovers"
                    self.world.tell(self.name, f"{verb} {order.run} ({order.launch.name})")
                self._executions[order.run] = Execution(self, order)
            case effects.StopRun():
                self.world.tell(self.name, f"stops {order.run} within {order.grace_s:g} s")
                if (running := self._executions.get(order.run)) is not None:
                    running.stop(order.grace_s)
            case effects.Connect():
                if self.servers is not None:
                    self.link.server = self.servers(self.plan.via[order.master_index])
                self._session = AgentSession(self, order.session)
            case effects.Disconnect():
                if self._session is not None and self._session.number == order.session:
                    self._session.close(order.reason)
            case effects.Stop():
                self.refused = f"{order.code}: {order.message}"
                self.checks.agent_refused(self)
            case effects.ReleaseAttempt():
                pass
            case _:
                raise AssertionError(f"no way to carry out {order!r}")

    # --- used by its parts --------------------------------------------------------------------

    @property
    def online(self) -> bool:
        """Whether the master has taken it in."""
        return self.agent is not None and self.agent.session.registered

    def can_fetch(self, blob: bytes) -> bool:
        """Return whether a blob can come now: from the master, or from a gateway that can give it."""
        server = self.link.server
        return self.online and (not isinstance(server, AgentNode) or server.provides(blob))

    def provides(self, blob: bytes) -> bool:
        """Return whether a device can have a blob from here."""
        if self.online:
            self.cache.add(blob)
        return blob in self.cache

    def post_run(self, event: events.Event, *, over: bool) -> None:
        """Take an event about a run; `over`: nothing of it is left."""
        if over:
            self._executions.pop(event.run, None)  # type: ignore[union-attr]
        self.post(event)

    def session_over(self, session: AgentSession, problem: str) -> None:
        """Take the end of a session."""
        if self._session is session:
            self._session = None
        self.post(events.Disconnected(session.number, problem, self.luck.random()))

    def _keep_journal(self) -> None:
        if self.disk.dirty:
            self.disk.sync()
        if self.disk.length > self.plan.compact_at and self.agent is not None:
            process = self._starts
            content = self.disk.begin_rewrite(map(encode_record, self.agent.records()))

            def end() -> None:
                if self.runs_as(process):
                    self.disk.end_rewrite(content)

            self.world.after(REWRITE_S, end)


class AgentSession:
    """One session's connection, as `agent.link.Link`."""

    def __init__(self, node: AgentNode, number: SessionId) -> None:
        self.number = number
        self._node = node
        self._process = node._starts
        self._connection: Connection | None = None
        self._over = False
        self._problem = ""
        self._outbox: list[Message] = []
        self._flush_due = False
        self._unread: deque[bytes] = deque()
        self._unhandled = 0
        self._patience = node.world.after(GREETING_TIMEOUT_S, lambda: self.close("no answer to dialling"))
        node.link.dial(self, self._dialled)

    def _dialled(self, connection: Connection | None) -> None:
        if self._over:
            if connection is not None:
                connection.close(UP, "dialled for too long")
            return
        self._patience.cancel()
        if connection is None:
            self.close("nobody answers")
            return
        self._connection = connection
        self._node.post(events.Connected(self.number, connection.name))

    def send(self, message: Message) -> None:
        """Queue a message; it leaves with all others of this turn."""
        if self._over:
            return
        if len(self._outbox) >= MAX_OUTBOX_MESSAGES:
            self.close("the master does not read what it is sent")
            return
        self._outbox.append(message)
        if not self._flush_due:
            self._flush_due = True
            self._node.world.after(0.0, self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._over or self._connection is None:
            return
        messages, self._outbox = self._outbox, []
        for frame in frames(messages, self._connection.quality.max_frame_bytes):
            self._connection.send(UP, frame)
            self._node.post(events.FrameSent(self.number))
        if self._node.world.telling:
            for message in messages:
                self._node.world.tell(self._node.name, f"-> master: {message}")

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """See `network.Side`."""
        if self._over:
            return
        self._unread.append(data)
        self._read()

    def _read(self) -> None:
        while self._unread and self._unhandled < SESSION_INBOX_FRAMES and not self._over:
            try:
                messages = decode_batch(self._unread.popleft())
            except DecodeError as error:
                raise Failure(f"{self._node.name}: the master sent what is no message: {error}") from error
            self._unhandled += 1
            if self._node.world.telling:
                for message in messages:
                    self._node.world.tell(self._node.name, f"<- master: {message}")
            self._node.post(events.FrameReceived(self.number, messages))

    def handled(self, session: SessionId) -> None:
        """A frame has been dealt with; one of an older session does not count."""
        if session == self.number:
            self._unhandled -= 1
            self._read()

    def on_closed(self, connection: Connection, reason: str) -> None:
        """See `network.Side`."""
        self.close(reason)

    def close(self, reason: str) -> None:
        """End the session; the machine hears of it soon."""
        if self._over:
            return
        self._over = True
        self._problem = reason
        self._patience.cancel()
        if self._connection is not None:
            self._connection.close(UP, reason)
        node, process = self._node, self._process
        node.world.tell(node.name, f"lost its session: {reason}")

        def over() -> None:
            if node.runs_as(process):
                node.session_over(self, reason)

        node.world.after(0.0, over)

    def die(self) -> None:
        """The process is gone, and its operating system closes the connection."""
        self._end_with("process died")

    def vanish(self) -> None:
        """The machine is gone, and nobody closes anything."""
        self._end_with(None)

    def _end_with(self, reason: str | None) -> None:
        self._over = True
        self._patience.cancel()
        if self._connection is None:
            return
        if reason is None:
            self._connection.vanish(UP)
        else:
            self._connection.close(UP, reason)
