"""A master's state machine on the bench: scripted peers, virtual time, and a store in a dictionary.

Every event is followed by the end of its batch and by `invariants.check`. Nothing is sent before it
is written: the harness takes writes and sends apart and keeps both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Attributes
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import AgentId, BlobId, FrameworkId, SessionId, TaskId
from edgerm_core.interfaces import Scheduler
from edgerm_core.master import invariants
from edgerm_core.master.effects import Changed, CloseSession, Commit, Effect, Report, Send
from edgerm_core.master.events import (
    BatchEnded,
    BlobStored,
    Event,
    Received,
    SessionClosed,
    SessionOpened,
)
from edgerm_core.master.machine import Machine
from edgerm_core.master.settings import Settings
from edgerm_core.messages import (
    AnyMessage,
    Failed,
    Greet,
    Heartbeat,
    Register,
    StatusUpdate,
    Submit,
    Submitted,
    Subscribe,
    TaskReport,
)
from edgerm_core.resources import Device, ResourceRequest, Resources
from edgerm_core.tasks import Implementation, TaskSpec, TaskState

MessageT = TypeVar("MessageT")

VERSIONS = (1, 1)


def spec(name: str = "job", resources: str = "cpus:1;mem:10", **changes: Any) -> TaskSpec:
    """Return a small task for the executor `test`."""
    implementations = changes.pop("implementations", (Implementation("test"),))
    return TaskSpec(name, implementations, ResourceRequest.parse(resources), **changes)


class Peer:
    """One session with the master: what it was sent, and whether it still stands."""

    def __init__(self, bench: MasterBench, session_id: SessionId) -> None:
        self.bench = bench
        self.session_id = session_id
        self.inbox: list[AnyMessage] = []
        self.closed: CloseSession | None = None

    def send(self, message: AnyMessage) -> None:
        """Let the master receive a message."""
        self.bench.handle(Received(self.session_id, message))

    def take(self, kind: type[MessageT]) -> list[MessageT]:
        """Return and remove the messages of one kind."""
        found: list[MessageT] = [m for m in self.inbox if isinstance(m, kind)]
        self.inbox = [m for m in self.inbox if not isinstance(m, kind)]
        return found

    def hang_up(self, reason: str = "cable pulled") -> None:
        """End the session from outside."""
        self.bench.handle(SessionClosed(self.session_id, reason))


class ScriptedAgent(Peer):
    """An agent that says what the test tells it to say."""

    def __init__(self, bench: MasterBench, session_id: SessionId, info: AgentInfo) -> None:
        super().__init__(bench, session_id)
        self.info = info

    def status(self, task_id: TaskId, state: TaskState, seq: int, attempt: int = 1, **fields: Any) -> None:
        """Send one status update."""
        self.send(StatusUpdate(task_id, attempt, seq, state, **fields))

    def run_to_end(self, task_id: TaskId, attempt: int = 1, ok: bool = True) -> None:
        """Report RUNNING and the end of an attempt."""
        self.status(task_id, TaskState.RUNNING, 1, attempt, reason="started")
        final = TaskState.FINISHED if ok else TaskState.FAILED
        self.status(task_id, final, 2, attempt, reason="exited", exit_code=0 if ok else 1)


class MasterBench:
    """A machine, its peers and its store."""

    def __init__(self, scheduler: Scheduler, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.scheduler = scheduler
        self.now = 1_000_000.0
        self.records: dict[str, dict[bytes, bytes]] = {}
        self.reports: list[str] = []
        self.changes: list[Changed] = []
        self.peers: dict[SessionId, Peer] = {}
        self._sessions = 0
        self._requests = 0
        self.machine = Machine(self.settings, scheduler, "bench", self.now)
        self.machine.restore({}, self.now)
        self.handle(BatchEnded())

    @property
    def state(self) -> Any:
        """The machine's books."""
        return self.machine.state

    def handle(self, *events: Event) -> None:
        """Hand in events as one batch, check the books, deliver what comes out."""
        effects: list[Effect] = []
        for event in events:
            effects += self.machine.handle(event, self.now)
            invariants.check(self.machine.state)
        effects += self.machine.handle(BatchEnded(), self.now)
        invariants.check(self.machine.state)
        for effect in effects:
            if isinstance(effect, Commit):
                for write in effect.writes:
                    table = self.records.setdefault(write.kind, {})
                    if write.value is None:
                        table.pop(write.key, None)
                    else:
                        table[write.key] = write.value
        closed: list[SessionId] = []
        for effect in effects:
            if isinstance(effect, Send):
                self.peers[effect.session_id].inbox.append(effect.message)
            elif isinstance(effect, CloseSession):
                self.peers[effect.session_id].closed = effect
                closed.append(effect.session_id)
            elif isinstance(effect, Report):
                self.reports.append(effect.text)
            elif isinstance(effect, Changed):
                self.changes.append(effect)
        for session_id in closed:
            self.handle(SessionClosed(session_id, "closed by the master"))

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline on the way."""
        end = self.now + seconds
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.handle()
        self.now = end
        self.handle()

    def live(self, seconds: float, *agents: ScriptedAgent, every_s: float = 1.0) -> None:
        """Let time pass while these agents keep up their heartbeats."""
        end = self.now + seconds
        while self.now < end:
            self.advance(min(every_s, end - self.now))
            for agent in agents:
                agent.send(Heartbeat())

    def connect(self) -> SessionId:
        """Open a session."""
        self._sessions += 1
        session_id = SessionId(self._sessions)
        self.peers[session_id] = Peer(self, session_id)
        self.handle(SessionOpened(session_id, f"bench:{session_id}"))
        return session_id

    def agent(
        self,
        name: str,
        resources: str = "cpus:4;mem:1000",
        *,
        attributes: Attributes | None = None,
        devices: tuple[Device, ...] = (),
        executors: tuple[Fingerprint, ...] = (Fingerprint("test"),),
        tasks: Sequence[TaskReport] = (),
        incarnation: str = "i1",
        boot_id: str = "b1",
        max_tasks: int = 0,
    ) -> ScriptedAgent:
        """Connect and register an agent."""
        totals = Resources.parse(resources)
        info = AgentInfo(AgentId(name), name, totals, attributes or {}, devices, executors, max_tasks)
        peer = ScriptedAgent(self, self.connect(), info)
        self.peers[peer.session_id] = peer
        peer.send(Register(VERSIONS, info, boot_id, incarnation, tuple(tasks)))
        return peer

    def framework(self, name: str, **info: Any) -> Peer:
        """Connect and subscribe a framework."""
        peer = self.peers[self.connect()]
        peer.send(Subscribe(VERSIONS, FrameworkInfo(FrameworkId(name), name, **info)))
        return peer

    def operator(self) -> Peer:
        """Connect an operator."""
        peer = self.peers[self.connect()]
        peer.send(Greet(VERSIONS))
        return peer

    def submit(self, framework: Peer, *specs: TaskSpec, key: str = "") -> list[TaskId]:
        """Submit specs and return the ids of their tasks.

        Raises:
            AssertionError: if the master refuses.
        """
        self._requests += 1
        keys = tuple(f"{key or f'k{self._requests}'}-{i}" for i in range(len(specs)))
        framework.send(Submit(self._requests, keys, specs))
        failed = framework.take(Failed)
        assert not failed, failed
        (answer,) = framework.take(Submitted)
        return [task_id for ids in answer.task_ids for task_id in ids]

    def store_blob(self, blob: BlobId, size: int = 1) -> None:
        """Let a blob arrive."""
        self.handle(BlobStored(blob, size))

    def restart(self, *, away_s: float = 0.0) -> None:
        """Kill the master and start another on the same records. All sessions are gone."""
        self.now += away_s
        self.machine = Machine(self.settings, self.scheduler, "another", self.now)
        copy = {kind: dict(table) for kind, table in self.records.items()}
        self.machine.restore(copy, self.now)
        self.peers.clear()
        invariants.check(self.machine.state)
        self.handle(BatchEnded())
