"""The master process around the real master machine, as `master.runner` is: same batches, same order.

    engine      hands what has come to the machine, in batches
    committer   makes staged batches durable in one commit, and only then sends what they say

While a commit is under way the engine goes on. The process can die between any two of these steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from edgerm_core.clock import SteadyClock
from edgerm_core.codec import decode_batch, encode
from edgerm_core.errors import DecodeError
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.interfaces import Scheduler, Write
from edgerm_core.limits import (
    HANDLE_BATCH_EVENTS,
    MAX_BATCH_MESSAGES,
    MAX_MESSAGE_BYTES,
    MAX_RELAY_CHANNELS,
    SESSION_INBOX_FRAMES,
)
from edgerm_core.master import journal
from edgerm_core.master.effects import CloseSession, Effect, Report, Send
from edgerm_core.master.events import (
    BatchEnded,
    BlobStored,
    Event,
    Heard,
    Received,
    SessionClosed,
    SessionOpened,
    Undeliverable,
)
from edgerm_core.master.machine import Machine
from edgerm_core.master.runner import STAGED_BATCHES, STORE_PATIENCE_S, STORE_RETRY_S, merge_writes
from edgerm_core.master.settings import Settings
from edgerm_core.messages import (
    Failed,
    Heartbeat,
    Launch,
    RefusalCode,
    Refused,
    RelayClose,
    Relayed,
    RelayOpen,
)
from edgerm_core.testing.simulator.agent_node import TIMER_SLACK_S
from edgerm_core.testing.simulator.checks import Checks
from edgerm_core.testing.simulator.disks import MasterDisk
from edgerm_core.testing.simulator.network import DOWN, Connection, Side
from edgerm_core.testing.simulator.relay import RelayChannel
from edgerm_core.testing.simulator.world import EPOCH, Failure, Timer, World

CrashPoint = Literal["now", "power", "before-commit", "after-commit", "half-sent"]
"""When the master dies: at once (alone, or with its machine), or at that point of the next batch that
writes something."""

START_S: Final = 0.5
"""From the start of the process until it listens."""


class Port:
    """One connection, as `master.port.SessionPort`.

    Attributes:
        channels: of a gateway, by number; None: nothing was ever relayed.
        outer: of a channel, the port of its gateway.
    """

    def __init__(
        self,
        node: MasterNode,
        session_id: SessionId,
        connection: Connection | RelayChannel,
        outer: Port | None = None,
    ) -> None:
        self.id = session_id
        self.connection = connection
        self.outer = outer
        self.channels: dict[int, Port] | None = None
        self.flush_due = False
        self.closing: str | None = None
        self.outbox: list[bytes] = []
        self._node = node
        self._process = node.starts
        self._unread: deque[bytes] = deque()
        self.frames_waiting = 0

    def on_frame(self, connection: Connection, data: bytes) -> None:
        """See `network.Side`."""
        self.take(data)

    def take(self, data: bytes) -> None:
        """Take a frame."""
        if self._node.runs_as(self._process) and self.closing is None:
            self._unread.append(data)
            self.read()

    def read(self) -> None:
        """Turn frames into events, while not too many of them wait."""
        while self._unread and self.frames_waiting < SESSION_INBOX_FRAMES:
            try:
                messages = decode_batch(self._unread.popleft(), MAX_MESSAGE_BYTES)
            except DecodeError as error:
                self._node.refuse(self, RefusalCode.MALFORMED, str(error))
                return
            events: list[Event] = []
            for message in messages:
                if isinstance(message, RelayOpen | Relayed | RelayClose):
                    self._node.relay(self, message)
                    if self.closing is not None:
                        return
                    continue
                events.append(Received(self.id, message))
                if isinstance(message, Heartbeat) and message.heard and self.channels is not None:
                    heard = (self.channels.get(channel) for channel in message.heard)
                    events.append(Heard(tuple(port.id for port in heard if port is not None)))
            if events:
                self.frames_waiting += 1
                self._node.enqueue(events, self)

    def on_closed(self, connection: Connection, reason: str) -> None:
        """See `network.Side`."""
        if self._node.runs_as(self._process):
            self._node.port_closed(self, reason)


class MasterNode:
    """The master, from one process to the next.

    Attributes:
        machine: of the process that runs; None between two.
        disk: what outlives the process.
        wall_offset_s: by how much its wall clock is off.
        starts: how many processes there have been.
    """

    name = "m"

    def __init__(
        self, world: World, settings: Settings, make_scheduler: Callable[[], Scheduler], checks: Checks
    ) -> None:
        self.world = world
        self.settings = settings
        self.make_scheduler = make_scheduler
        self.checks = checks
        self.disk = MasterDisk()
        self.luck = world.luck("master")
        self.machine: Machine | None = None
        self.listening = False
        self.wall_offset_s = 0.0
        self.starts = 0
        self.blobs: dict[bytes, int] = {}
        #: Called when the process has died of something that no action ordered.
        self.on_death: Callable[[], None] = lambda: None
        self._crash_at: CrashPoint | None = None
        self._clock: Callable[[], float] = lambda: 0.0
        self._base = 0.0
        self._started_at = 0.0
        self._ports: dict[SessionId, Port] = {}
        self._next_session = 1
        self._queue: deque[tuple[list[Event], Port | None]] = deque()
        self._staged: deque[list[Effect]] = deque()
        self._committing = False
        #: What the disk is writing just now.
        self._landing: list[Write] = []
        self._engine_due: Timer | None = None
        self._engine_at = 0.0

    # --- life and death -----------------------------------------------------------------------

    def runs_as(self, process: int) -> bool:
        """Return whether that process is the one that runs."""
        return self.machine is not None and self.starts == process

    def start(self) -> None:
        """Begin a process on what the disk holds."""
        if self.machine is not None:
            return
        self.starts += 1
        self._started_at = self.world.now
        records = self.disk.load()
        meta = journal.read_meta(records)
        self._clock = SteadyClock(
            meta.now if meta else 0.0,
            wall=lambda: EPOCH + self.wall_offset_s + self.world.now,
            monotonic=lambda: self.world.now,
        )
        self._base = self._clock() - self.world.now
        self.machine = Machine(self.settings, self.make_scheduler(), f"master-{self.starts}", self._clock())
        for blob, size in self.blobs.items():
            self.machine.handle(BlobStored(blob, size), self._clock())  # type: ignore[arg-type]
        self.machine.restore(records, self._clock())
        self.world.tell(self.name, f"starts, with {len(self.machine.state.tasks)} tasks on record")
        self.checks.master_started(self)
        self._stage(self._handle_batch())
        process = self.starts

        def listen() -> None:
            if self.runs_as(process):
                self.listening = True

        self.world.after(START_S, listen)

    def crash(self, point: CrashPoint = "now") -> None:
        """Die, at once or at that point of the next batch that writes something."""
        if self.machine is None:
            return
        if point == "now":
            self._die("is killed")
        elif point == "power":
            self._die("loses its power", silently=True)
        else:
            self._crash_at = point

    def stop(self) -> None:
        """End in good order: write what is staged, and the time."""
        if self.machine is None:
            return
        effects = [effect for batch in self._staged for effect in batch]
        if not self.disk.refuses and not self._committing:
            self.disk.commit([*merge_writes(effects), journal.meta_write(self.machine.state)])
        self._die("ends in good order")

    def _die(self, why: str, *, silently: bool = False) -> None:
        self.world.tell(self.name, why)
        landing, self._landing = self._landing, []
        if landing and not self.disk.refuses and self.luck.random() < 0.5:
            # It died while the disk was writing: all of it is there, or nothing.
            self.disk.commit(landing)
        self.machine = None
        self.listening = False
        self._crash_at = None
        for port in list(self._ports.values()):
            if silently:
                port.connection.vanish(DOWN)
            else:
                port.connection.close(DOWN, "the master is gone")
        self._ports.clear()
        self._next_session = 1
        self._queue.clear()
        self._staged.clear()
        self._committing = False
        if self._engine_due is not None:
            self._engine_due.cancel()
            self._engine_due = None

    def _die_at(self, point: CrashPoint) -> bool:
        if self._crash_at != point:
            return False
        self._die(f"is killed ({point})")
        self.on_death()
        return True

    @property
    def up_s(self) -> float:
        """How long the process has been running."""
        return self.world.now - self._started_at

    @property
    def busy(self) -> bool:
        """Whether something is between the books and the disk."""
        return bool(self._staged or self._landing)

    # --- sessions in --------------------------------------------------------------------------

    def accept(self, connection: Connection) -> Side:
        """See `network.Server`."""
        session_id = SessionId(self._next_session)
        self._next_session += 1
        port = Port(self, session_id, connection)
        self._ports[session_id] = port
        quality = connection.quality
        opened = SessionOpened(session_id, connection.name, None, quality.push, quality.max_frame_bytes)
        self.enqueue([opened], None)
        return port

    def enqueue(self, events: list[Event], port: Port | None) -> None:
        """Let the machine handle events with the next batch."""
        self._queue.append((events, port))
        self._wake_engine(self.world.now + self.luck.random() * 0.001)

    def relay(self, port: Port, message: RelayOpen | Relayed | RelayClose) -> None:
        """Carry the sessions of devices beside the machine, as `runner._relay`."""
        assert self.machine is not None
        session = self.machine.state.sessions.get(port.id)
        if port.channels is None:
            if session is None or session.role != "agent" or isinstance(port.connection, RelayChannel):
                text = "only an agent with a connection of its own can be a gateway"
                self.refuse(port, RefusalCode.UNEXPECTED, text)
                return
            port.channels = {}
        number = message.channel
        channel = port.channels.get(number)
        if isinstance(message, RelayOpen):
            if channel is not None or len(port.channels) >= MAX_RELAY_CHANNELS:
                self._put(port, encode(RelayClose(number, "open already, or too many")))
            else:
                assert session is not None
                assert session.agent_id is not None
                port.channels[number] = self._accept_channel(port, session.agent_id, message)
        elif channel is None:
            return  # It has been closed from here, which the gateway did not know yet.
        elif isinstance(message, Relayed):
            channel.take(message.data)
        else:
            self.port_closed(channel, f"its gateway closed the channel: {message.reason}")

    def _accept_channel(self, outer: Port, via: AgentId, opened: RelayOpen) -> Port:
        assert isinstance(outer.connection, Connection)
        channel = RelayChannel(outer.connection, via, opened, lambda data: self._put(outer, data))
        session_id = SessionId(self._next_session)
        self._next_session += 1
        port = self._ports[session_id] = Port(self, session_id, channel, outer)
        custody_of = AgentId(opened.custody_of) if opened.custody_of else None
        size = channel.quality.max_frame_bytes
        event = SessionOpened(
            session_id, opened.peer or channel.name, None, True, size, via, opened.age_s, custody_of
        )
        self.enqueue([event], None)
        return port

    def _put(self, port: Port, data: bytes) -> None:
        """Queue what a channel says in its gateway's port, and send it soon."""
        port.outbox.append(data)
        if port.flush_due:
            return
        port.flush_due = True
        process = self.starts

        def flush() -> None:
            port.flush_due = False
            if self.runs_as(process) and port.id in self._ports and port.outbox:
                self._flush_port(port)

        self.world.after(0.0, flush)

    def store_blob(self, blob: bytes, size: int) -> None:
        """A blob has been uploaded."""
        self.blobs[blob] = size
        if self.machine is not None:
            self.enqueue([BlobStored(blob, size)], None)  # type: ignore[arg-type]

    def port_closed(self, port: Port, reason: str) -> None:
        """The transport says that a connection is gone."""
        if self._ports.pop(port.id, None) is not None:
            for channel in list((port.channels or {}).values()):
                self.port_closed(channel, "its gateway's connection ended")
            if isinstance(port.connection, RelayChannel):
                assert port.outer is not None
                assert port.outer.channels is not None
                port.outer.channels.pop(port.connection.opened.channel, None)
            self.enqueue([SessionClosed(port.id, reason)], None)

    # --- the engine ---------------------------------------------------------------------------

    def _wake_engine(self, at: float) -> None:
        if self._engine_due is not None:
            if self._engine_at <= at:
                return
            self._engine_due.cancel()
        self._engine_at = at
        self._engine_due = self.world.at(at, self._run_engine)

    def _run_engine(self) -> None:
        self._engine_due = None
        if len(self._staged) >= STAGED_BATCHES:
            return  # The committer wakes it when it has taken them.
        self._stage(self._handle_batch())
        self._plan_engine()

    def _plan_engine(self) -> None:
        if self.machine is None:
            return
        if self._queue:
            self._wake_engine(self.world.now)
            return
        deadline = self.machine.next_deadline()
        if deadline is not None:
            self._wake_engine(max(deadline - self._base, self.world.now) + TIMER_SLACK_S)

    def _handle_batch(self) -> list[Effect]:
        effects: list[Effect] = []
        count = 0
        while self._queue and count < HANDLE_BATCH_EVENTS:
            events, port = self._queue.popleft()
            count += len(events)
            for event in events:
                effects += self._handle(event)
            if port is not None:
                port.frames_waiting -= 1
                if port.closing is None and port.id in self._ports:
                    port.read()
        return effects + self._handle(BatchEnded())

    def _handle(self, event: Event) -> list[Effect]:
        assert self.machine is not None
        if self.world.telling and isinstance(event, Received):
            peer = self._ports.get(event.session_id)
            who = peer.connection.name if peer is not None else "a closed session"
            self.world.tell(self.name, f"<- {who}: {event.message}")
        try:
            effects = self.machine.handle(event, self._clock())
        except Failure:
            raise
        except Exception as error:
            # The real runner logs this, cuts the peer off and goes on. Here it is found.
            what = event.message if isinstance(event, Received) else event
            raise Failure(f"m: handling {what} raised {type(error).__name__}: {error}") from error
        self.checks.master_handled(self, event)
        return effects

    def _stage(self, effects: list[Effect]) -> None:
        if effects:
            self._staged.append(effects)
            if not self._committing:
                self._committing = True
                process = self.starts
                self.world.after(0.0, lambda: self._commit(process))

    # --- the committer ------------------------------------------------------------------------

    def _commit(self, process: int) -> None:
        if not self.runs_as(process):
            return
        effects = [effect for batch in self._staged for effect in batch]
        self._staged.clear()
        self._plan_engine()
        writes = merge_writes(effects)
        if not writes:
            self._carry_out(process, effects)
            return
        if not self._die_at("before-commit"):
            give_up_at = self.world.now + STORE_PATIENCE_S
            self._landing = writes
            duration_s = self.disk.commit_s * (0.5 + self.luck.random())
            self.world.after(duration_s, lambda: self._try_commit(process, writes, effects, give_up_at))

    def _try_commit(
        self, process: int, writes: list[Write], effects: list[Effect], give_up_at: float
    ) -> None:
        if not self.runs_as(process):
            return
        if self.disk.refuses:
            if self.world.now >= give_up_at:
                self._die("gives up on its disk")
                self.on_death()
                return
            self.world.after(STORE_RETRY_S, lambda: self._try_commit(process, writes, effects, give_up_at))
            return
        self._landing = []
        self.disk.commit(writes)
        for write in writes:
            self.world.story.mark(self.world.now, write.kind, write.key + (write.value or b""))
        self.checks.master_committed(self)
        if not self._die_at("after-commit"):
            self.world.after(self.luck.random() * 0.001, lambda: self._carry_out(process, effects))

    def _carry_out(self, process: int, effects: list[Effect]) -> None:
        if not self.runs_as(process):
            return
        sends = 0
        for effect in effects:
            match effect:
                case Send(session_id, message):
                    port = self._ports.get(session_id)
                    if port is None or port.closing is not None:
                        continue
                    sends += 1
                    if sends == 2 and self._crash_at == "half-sent":
                        self._flush()
                        self._die_at("half-sent")
                        return
                    if self.world.telling:
                        self.world.tell(self.name, f"-> {port.connection.name}: {message}")
                    data = encode(message)
                    if len(data) > port.connection.quality.max_frame_bytes:
                        if isinstance(message, Launch):
                            self.enqueue([Undeliverable(port.id, message, len(data))], None)
                            continue
                        request_id = getattr(message, "request_id", None)
                        if request_id is None:
                            continue
                        data = encode(Failed(request_id, RefusalCode.LIMIT, "the answer is too large"))
                    port.outbox.append(data)
                case CloseSession(session_id, code, text):
                    port = self._ports.get(session_id)
                    if port is not None:
                        self.refuse(port, code, text)
                case Report(_, text):
                    self.world.tell(self.name, text)
                case _:
                    pass
        self._flush()
        self._committing = False
        if self._staged:
            self._committing = True
            self.world.after(0.0, lambda: self._commit(process))

    # --- sessions out -------------------------------------------------------------------------

    def refuse(self, port: Port, code: str, text: str) -> None:
        """Say why, and end the session once that has been sent."""
        if port.closing is not None:
            return
        port.closing = text
        self.world.tell(self.name, f"-> {port.connection.name}: refused ({code}): {text}")
        port.outbox.append(encode(Refused(code, text)))
        process = self.starts

        def close() -> None:
            if self.runs_as(process) and port.id in self._ports:
                self._flush_port(port)
                port.connection.close(DOWN, text)
                self.port_closed(port, text)

        self.world.after(0.0, close)

    def _flush(self) -> None:
        for port in list(self._ports.values()):
            if port.outbox:
                self._flush_port(port)

    def _flush_port(self, port: Port) -> None:
        """Send what waits in as few frames as `SessionPort.take_frame` would make."""
        pieces: list[bytes] = []
        size = 0
        for data in port.outbox:
            too_much = size + len(data) > port.connection.quality.max_frame_bytes
            if pieces and (too_much or len(pieces) >= MAX_BATCH_MESSAGES):
                port.connection.send(DOWN, b"".join(pieces))
                pieces, size = [], 0
            pieces.append(data)
            size += len(data)
        if pieces:
            port.connection.send(DOWN, b"".join(pieces))
        port.outbox.clear()
