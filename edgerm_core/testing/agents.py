"""Drives the agent's state machine in tests: a scripted master above it, scripted executors below.

After every event the invariants are checked, and the journal is read back and compared.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from edgerm_core.agent import effects, events
from edgerm_core.agent.invariants import check
from edgerm_core.agent.records import Record, decode_record, encode_record, record_of
from edgerm_core.agent.recovery import recover
from edgerm_core.agent.session import SessionState
from edgerm_core.agent.state import Agent
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.ids import AgentId, FrameworkId, SessionId, TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.messages import Acknowledge, AnyMessage, Kill, Launch, Registered, StatusUpdate
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, Implementation, Reason

INFO = AgentInfo(
    AgentId("a1"),
    "gw",
    Resources.parse("cpus:4;mem:1024;ports:[31000-31009]"),
    {"os": "linux"},
    (),
    (Fingerprint("fake"), Fingerprint("sick", healthy=False, problem="it is not well")),
)
WELL = ExitResult(True, Reason.EXITED, exit_code=0)
BADLY = ExitResult(False, Reason.EXIT_CODE, "exit code 3", exit_code=3)
HEARTBEAT_S = 10.0
LEASE_S = 35.0

E = TypeVar("E", bound=effects.Effect)


def a_launch(task_id: int = 1, attempt: int = 1, executor: str = "fake", **fields: Any) -> Launch:
    return Launch(TaskId(task_id), attempt, FrameworkId("f"), "job", Implementation(executor), **fields)


def run_id(task_id: int = 1, attempt: int = 1, restarts: int = 0) -> events.RunId:
    return events.RunId(TaskId(task_id), attempt, restarts)


class AgentBench:
    """The agent, the time, and everything it has asked for.

    Attributes:
        sent: messages, in order.
        done: all effects but records and messages, in order.
        journal: records as bytes, in order.
    """

    def __init__(self, *, masters: int = 1, max_tasks: int = 100, info: AgentInfo = INFO) -> None:
        self.now = 1000.0
        self.sent: list[AnyMessage] = []
        self.done: list[effects.Effect] = []
        self.journal: list[bytes] = []
        self._settings = {"masters": masters, "max_tasks": max_tasks}
        self._info = info
        self.starts = 0
        self._boot()

    def _boot(self) -> None:
        self.starts += 1
        self.agent = Agent(
            self._info,
            boot_id="boot",
            incarnation=f"i{self.starts}",
            recovered=recover(map(decode_record, self.journal)),
            **self._settings,
        )

    def tell(self, event: events.Event) -> list[effects.Effect]:
        found = self.agent.handle(event, self.now)
        for effect in found:
            if isinstance(effect, effects.WriteRecord):
                self.journal.append(encode_record(effect.record))
            elif isinstance(effect, effects.Send):
                self.sent.append(effect.message)
            else:
                self.done.append(effect)
        check(self.agent)
        self.check_journal()
        return found

    def check_journal(self) -> None:
        """What the journal says is what the agent knows, but for acknowledgements of what is not final."""
        recovered = recover(map(decode_record, self.journal))
        assert recovered.master_id == self.agent.master_id
        live = self.agent.runs.known
        assert recovered.runs.keys() == live.keys()
        for key, run in recovered.runs.items():
            then, now = record_of(run), record_of(live[key])
            assert set(now.unacked) <= set(then.unacked)
            assert msgspec.structs.replace(then, unacked=()) == msgspec.structs.replace(now, unacked=())

    # --- the master ---------------------------------------------------------------------------

    @property
    def session(self) -> SessionId:
        return self.agent.session.number

    def begin(self) -> None:
        self.tell(events.Began())

    def register(self, master_id: str = "m", heartbeat_s: float = HEARTBEAT_S) -> None:
        """Connect the session that the agent has asked for, and take the agent in."""
        self.tell(events.Connected(self.session))
        self.receive(Registered(1, heartbeat_s, LEASE_S, master_id))

    def come_up(self) -> AgentBench:
        self.begin()
        self.register()
        return self

    def receive(self, *messages: AnyMessage) -> None:
        self.tell(events.FrameReceived(self.session, list(messages)))

    def lose(self, jitter: float = 0.5) -> None:
        self.tell(events.Disconnected(self.session, "the cable was pulled", jitter))

    def reconnect(self) -> None:
        while self.agent.session.state is SessionState.OFFLINE:
            self.pass_time()
        self.register()

    def launch(self, task_id: int = 1, attempt: int = 1, **fields: Any) -> None:
        self.receive(a_launch(task_id, attempt, **fields))

    def kill(self, task_id: int = 1, attempt: int = 1, grace_s: float = 5.0, reason: str = "") -> None:
        self.receive(Kill(TaskId(task_id), attempt, grace_s, reason))

    def acknowledge(self, task_id: int = 1, attempt: int = 1, seq: int | None = None) -> None:
        run = self.agent.runs.known.get((TaskId(task_id), attempt))
        last = seq if seq is not None else (run.updates.last_seq if run is not None else 1)
        self.receive(Acknowledge(TaskId(task_id), attempt, last))

    def updates(self, task_id: int = 1) -> list[StatusUpdate]:
        return [m for m in self.sent if isinstance(m, StatusUpdate) and m.task_id == task_id]

    def states(self, task_id: int = 1) -> list[tuple[int, int, str]]:
        """Attempt, number and state of each update sent."""
        return [(m.attempt, m.seq, m.state.name) for m in self.updates(task_id)]

    # --- executors ----------------------------------------------------------------------------

    def start(self, task_id: int = 1, attempt: int = 1, restarts: int = 0) -> None:
        run = run_id(task_id, attempt, restarts)
        self.tell(events.RunStarted(run, TaskHandle("fake", data={"run": str(run)})))

    def end(self, task_id: int = 1, attempt: int = 1, restarts: int = 0, result: ExitResult = WELL) -> None:
        self.tell(events.RunEnded(run_id(task_id, attempt, restarts), result))

    def running(self, task_id: int = 1, attempt: int = 1, **fields: Any) -> None:
        self.launch(task_id, attempt, **fields)
        self.start(task_id, attempt)

    # --- time and death -----------------------------------------------------------------------

    def pass_time(self, seconds: float | None = None) -> None:
        """Let `seconds` pass; None: until the next deadline."""
        target = self.now + seconds if seconds is not None else self.agent.next_deadline()
        assert target is not None, "nothing is due"
        while (due := self.agent.next_deadline()) is not None and due <= target:
            self.now = max(self.now, due)
            self.tell(events.Ticked())
        self.now = max(self.now, target)

    def restart_agent(self) -> None:
        """Kill the agent process and start it again."""
        self.sent.clear()
        self.done.clear()
        self._boot()
        self.begin()

    def take(self, kind: type[E]) -> list[E]:
        """Return and forget the effects of a kind."""
        found: list[E] = [effect for effect in self.done if isinstance(effect, kind)]
        self.done = [effect for effect in self.done if not isinstance(effect, kind)]
        return found


def records(machine: AgentBench) -> list[Record]:
    return [decode_record(data) for data in machine.journal]
