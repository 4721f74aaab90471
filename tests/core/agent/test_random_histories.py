"""Random interleavings of orders, exits, lost connections and killed agent processes.

The model master takes an update only if its number is the next one, as the real one does. After every
step the invariants hold and the journal equals the live state (`AgentBench.tell`); at the end, when the
faults stop, every attempt that was ordered has been reported as ended exactly once.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgerm_core.agent import effects, events
from edgerm_core.agent.run import Phase
from edgerm_core.agent.session import SessionState
from edgerm_core.ids import TaskId
from edgerm_core.messages import Acknowledge, HeartbeatAck, Launch, StatusUpdate
from edgerm_core.tasks import Reason, RestartPolicy, TaskState
from edgerm_core.testing.agents import BADLY, WELL, AgentBench, a_launch

POLICIES = [
    RestartPolicy(),
    RestartPolicy(on="failure", attempts=2, delay_s=1.0),
    RestartPolicy(on="always", attempts=3, delay_s=0.5),
]
TASKS = st.integers(1, 3)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = AgentBench()
        self.bench.begin()
        self.attempts: dict[int, int] = {}
        self.last_seq: dict[tuple[int, int], int] = {}
        self.ends: dict[tuple[int, int], list[TaskState]] = {}
        self.orders: list[Launch] = []
        self.starts: set[tuple[str, events.RunId]] = set()
        self.starting: set[events.RunId] = set()
        self.running: set[events.RunId] = set()
        self.stopping: set[events.RunId] = set()
        self.read = 0
        self.on_the_way: list[StatusUpdate] = []
        self.killed: dict[int, int] = {}
        self.settled: set[tuple[int, int]] = set()

    @property
    def registered(self) -> bool:
        return self.bench.agent.session.registered

    # --- the master ---------------------------------------------------------------------------

    def note(self) -> None:
        """Let the model read what the agent has asked for and said."""
        for order in self.bench.take(effects.StartRun):
            key = (self.bench.agent._incarnation, order.run)
            assert order.run.attempt > self.killed.get(order.run.task_id, 0), f"{order.run} was killed"
            assert key not in self.starts, f"{order.run} was started twice by one agent process"
            assert not any(run.task_id == order.run.task_id for run in self.starting | self.running)
            self.starts.add(key)
            self.starting.add(order.run)
        for recovery in self.bench.take(effects.RecoverRun):
            self.running.add(recovery.run)
        for stop in self.bench.take(effects.StopRun):
            self.stopping.add(stop.run)
        self.on_the_way += [m for m in self.bench.sent[self.read :] if isinstance(m, StatusUpdate)]
        self.read = len(self.bench.sent)

    def take(self, update: StatusUpdate) -> None:
        key = (update.task_id, update.attempt)
        last = self.last_seq.get(key, 0)
        assert update.seq <= last + 1, f"{key}: number {update.seq} follows {last}"
        if update.seq == last + 1:
            assert not self.ends.get(key), f"{key}: {update.state.name} follows an end"
            self.last_seq[key] = update.seq
            if update.state.terminal:
                self.ends.setdefault(key, []).append(update.state)

    def tell(self, message: Launch | Acknowledge | HeartbeatAck) -> None:
        self.bench.receive(message)

    @precondition(lambda self: self.registered)
    @rule(task=TASKS, policy=st.sampled_from(POLICIES), stop_after_s=st.sampled_from([None, 5.0]))
    def launch(self, task: int, policy: RestartPolicy, stop_after_s: float | None) -> None:
        attempt = self.attempts[task] = self.attempts.get(task, 0) + 1
        order = a_launch(task, attempt, restart=policy, stop_after_s=stop_after_s)
        self.orders.append(order)
        self.tell(order)

    @precondition(lambda self: self.registered and self.orders)
    @rule(data=st.data())
    def launch_again(self, data: st.DataObject) -> None:
        """Orders come again, late, and out of order."""
        order = data.draw(st.sampled_from(self.orders))
        # What was on its way when the agent process died has died with its session, and in the next one
        # the master does not order what it has seen the end of, or has killed.
        if (order.task_id, order.attempt) not in self.settled:
            self.tell(order)

    @precondition(lambda self: self.registered)
    @rule(task=TASKS, ahead=st.integers(-1, 1))
    def kill(self, task: int, ahead: int) -> None:
        attempt = max(1, self.attempts.get(task, 0) + ahead)
        if self.ends.get((task, attempt)):
            return
        self.attempts[task] = max(attempt, self.attempts.get(task, 0))
        self.orders.append(a_launch(task, attempt))  # It may still be on its way.
        self.killed[task] = max(attempt, self.killed.get(task, 0))
        self.bench.kill(task, attempt)

    @precondition(lambda self: self.on_the_way)
    @rule(count=st.integers(1, 4))
    def deliver(self, count: int) -> None:
        """The master reads a few updates; the rest is lost if the connection is."""
        for update in self.on_the_way[:count]:
            self.take(update)
        del self.on_the_way[:count]

    @precondition(lambda self: self.registered and self.last_seq)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        task, attempt = data.draw(st.sampled_from(sorted(self.last_seq)))
        self.tell(Acknowledge(TaskId(task), attempt, self.last_seq[task, attempt]))

    # --- the network --------------------------------------------------------------------------

    @precondition(lambda self: self.bench.agent.session.state is SessionState.CONNECTING)
    @rule()
    def connect(self) -> None:
        self.bench.register()

    @precondition(
        lambda self: self.bench.agent.session.state not in (SessionState.OFFLINE, SessionState.STOPPED)
    )
    @rule(jitter=st.floats(0, 0.99))
    def lose(self, jitter: float) -> None:
        self.bench.lose(jitter)
        self.note()
        self.on_the_way.clear()

    # --- executors ----------------------------------------------------------------------------

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), how=st.sampled_from(["well", "fetching", "badly", "wrong"]))
    def start(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.starting, key=str)))
        if how == "fetching":
            self.bench.tell(events.RunFetching(run))
            return
        self.starting.discard(run)
        if how == "well":
            self.running.add(run)
            self.bench.start(run.task_id, run.attempt, run.restarts)
        elif run in self.stopping:
            self.bench.tell(events.RunCancelled(run))
        elif how == "badly":
            event = events.RunNotStarted(
                run, TaskState.FAILED, Reason.LAUNCH_FAILED, "no", recoverable=True
            )
            self.bench.tell(event)
        else:
            self.bench.tell(events.RunNotStarted(run, TaskState.ERROR, Reason.SPEC_INVALID, "no"))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        run = data.draw(st.sampled_from(sorted(self.running, key=str)))
        self.running.discard(run)
        self.bench.end(run.task_id, run.attempt, run.restarts, WELL if well else BADLY)

    # --- time and death -----------------------------------------------------------------------

    @rule(seconds=st.floats(0.01, 40.0))
    def pass_time(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule(data=st.data())
    def kill_agent(self, data: st.DataObject) -> None:
        """kill -9 and start again; executors keep some of the runs."""
        self.starting.clear()
        self.running.clear()
        self.stopping.clear()
        self.read = 0
        self.on_the_way.clear()
        self.settled |= set(self.ends)
        self.settled |= {
            (order.task_id, order.attempt)
            for order in self.orders
            if order.attempt <= self.killed.get(order.task_id, 0)
        }
        self.bench.restart_agent()
        self.note()
        for run in sorted(self.running, key=str):
            if data.draw(st.booleans()):
                handle = self.bench.agent.runs.active[run.task_id].handle
                assert handle is not None
                self.bench.tell(events.RunRecovered(run, handle))
            else:
                self.running.discard(run)
                self.bench.tell(events.RunLost(run, "gone"))

    @invariant()
    def the_model_agrees(self) -> None:
        self.note()
        for key, ends in self.ends.items():
            assert len(ends) == 1, f"{key} ended as {ends}"

    def teardown(self) -> None:
        """The faults stop: within bounded time everything has ended and is acknowledged."""
        for _ in range(200):
            session = self.bench.agent.session
            if session.state is SessionState.CONNECTING:
                self.bench.register()
            elif session.state is SessionState.CLOSING:
                self.lose(0.0)
            elif session.registered:
                self.bench.receive(HeartbeatAck())
                for task, attempt in self.attempts.items():
                    self.bench.kill(task, attempt)
                self.note()
                for run in list(self.starting):
                    self.starting.discard(run)
                    self.bench.tell(events.RunCancelled(run))
                for run in list(self.running):
                    self.running.discard(run)
                    self.bench.end(run.task_id, run.attempt, run.restarts)
                self.note()
                self.deliver(len(self.on_the_way))
                for (task, attempt), seq in list(self.last_seq.items()):
                    self.tell(Acknowledge(TaskId(task), attempt, seq))
                if not self.bench.agent.runs.known:
                    break
            self.bench.pass_time(1.0)
            self.note()
        assert not self.bench.agent.runs.known, "something never ended"
        for task, attempt in self.attempts.items():
            assert self.ends.get((task, attempt)), f"t{task}.{attempt} was never reported as ended"
        assert all(run.phase is not Phase.ENDED for run in self.bench.agent.runs.active.values())


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
