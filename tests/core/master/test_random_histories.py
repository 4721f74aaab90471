"""Random histories: whatever peers say and whenever the master dies, the books stay right.

`MasterBench` checks the invariants after every event. These histories mix honest peers, peers that
lie, silence, lost connections, operators and restarts, and end by letting everything calm down: then
every task must have ended or wait for a stated reason.
"""

from __future__ import annotations

import random

import pytest

from edgerm_core.ids import TaskId
from edgerm_core.messages import (
    Accept,
    AnyMessage,
    Decline,
    Drain,
    Forget,
    Heartbeat,
    Inventory,
    Kill,
    KillTasks,
    Launch,
    Offers,
    Query,
    Reconcile,
    Rescind,
    Revive,
    StatusUpdate,
    Submit,
    Suppress,
    TaskReport,
    Unsubscribe,
)
from edgerm_core.resources import Resources
from edgerm_core.tasks import (
    DisconnectPolicy,
    Reason,
    ReschedulePolicy,
    TaskSpec,
    TaskState,
)
from edgerm_core.testing.masters import MasterBench, Peer, ScriptedAgent, spec

STEPS = 120
AGENTS = ("a1", "a2", "a3")
FRAMEWORKS = ("f1", "f2")


class ModelAgent:
    """An agent that runs what it is told, remembers it over lost connections, and may forget all."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name = name
        self.dice = dice
        self.peer: ScriptedAgent | None = None
        self.incarnation = 0
        #: Task to [attempt, next seq, state].
        self.runs: dict[TaskId, list[int]] = {}

    def connect(self, bench: MasterBench) -> None:
        reports = [TaskReport(t, r[0], TaskState(r[2])) for t, r in self.runs.items()]
        size = self.dice.choice(["cpus:4;mem:100", "cpus:2;mem:50;ports:[1-9]"])
        self.peer = bench.agent(self.name, size, tasks=reports, incarnation=f"i{self.incarnation}")

    def forget(self) -> None:
        """The process died together with what it ran."""
        self.incarnation += 1
        self.runs.clear()
        self.peer = None

    def read(self) -> None:
        """Obey what has arrived."""
        if self.peer is None:
            return
        if self.peer.closed is not None:
            self.peer = None
            return
        for launch in self.peer.take(Launch):
            known = self.runs.get(launch.task_id)
            if known is None or known[0] < launch.attempt:
                self.runs[launch.task_id] = [launch.attempt, 1, TaskState.STARTING]
        for kill in self.peer.take(Kill):
            run = self.runs.get(kill.task_id)
            if run is None:
                self.report(kill.task_id, [kill.attempt, 1, 0], TaskState.KILLED, kill.reason)
            elif run[0] <= kill.attempt:
                self.report(kill.task_id, run, TaskState.KILLED, kill.reason)
                self.runs.pop(kill.task_id, None)

    def report(self, task_id: TaskId, run: list[int], state: TaskState, reason: str) -> None:
        if self.peer is not None:
            self.peer.send(StatusUpdate(task_id, run[0], run[1], state, reason))
            run[1] += 1
            run[2] = state

    def work(self) -> None:
        """Let one run get on."""
        if not self.runs or self.peer is None or self.peer.closed:
            return
        task_id = self.dice.choice(sorted(self.runs))
        run = self.runs[task_id]
        if run[2] != TaskState.RUNNING and self.dice.random() < 0.7:
            self.report(task_id, run, TaskState.RUNNING, Reason.STARTED)
            return
        state, reason = self.dice.choice(
            [
                (TaskState.FINISHED, Reason.EXITED),
                (TaskState.FAILED, Reason.EXIT_CODE),
                (TaskState.FAILED, Reason.AGENT_RESTARTED),
                (TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE),
                (TaskState.ERROR, Reason.SPEC_INVALID),
            ]
        )
        self.report(task_id, run, state, reason)
        del self.runs[task_id]


class History:
    """One random history."""

    def __init__(self, bench: MasterBench, seed: int) -> None:
        self.bench = bench
        self.dice = random.Random(seed)
        self.agents = [ModelAgent(name, self.dice) for name in AGENTS]
        self.frameworks: dict[str, Peer] = {}
        self.offers: dict[str, list[int]] = {name: [] for name in FRAMEWORKS}
        self.requests = 0

    def request(self) -> int:
        self.requests += 1
        return self.requests

    def random_spec(self) -> TaskSpec:
        dice = self.dice
        return spec(
            resources=dice.choice(["cpus:1;mem:10", "cpus:3;mem:1", "cpus:0.5;ports:2", "cpus:99"]),
            instances=dice.choice([1, 1, 2]),
            reschedule=ReschedulePolicy(
                failures=dice.choice([0, 2]), losses=dice.choice([1, 10]), delay_s=dice.choice([0, 3])
            ),
            disconnect=DisconnectPolicy(lost_after_s=dice.choice([0, 10]), replace=dice.random() < 0.7),
        )

    def step(self) -> None:
        dice, bench = self.dice, self.bench
        agent = dice.choice(self.agents)
        name = dice.choice(FRAMEWORKS)
        framework = self.frameworks.get(name)
        task_id = TaskId(dice.randint(1, max(2, bench.state.next_task_id)))
        match dice.choice(MOVES):
            case "agent on":
                if agent.peer is None:
                    agent.connect(bench)
            case "agent off":
                if agent.peer is not None and agent.peer.closed is None:
                    agent.peer.hang_up()
                agent.peer = None
            case "agent dies":
                if agent.peer is not None and agent.peer.closed is None:
                    agent.peer.hang_up()
                agent.forget()
            case "agent works":
                agent.work()
            case "agent lies":
                if agent.peer is not None and agent.peer.closed is None:
                    state = dice.choice(list(TaskState))
                    agent.peer.send(StatusUpdate(task_id, dice.randint(0, 3), dice.randint(0, 4), state))
            case "agent shrinks":
                if agent.peer is not None and agent.peer.closed is None:
                    totals = dice.choice(["cpus:1", "cpus:4;mem:100", "cpus:8;mem:8;ports:[5-7]"])
                    agent.peer.send(Inventory(totals=Resources.parse(totals)))
            case "framework on":
                offers = dice.random() < 0.4
                weight = dice.choice([500, 1000])
                self.frameworks[name] = bench.framework(name, offers=offers, weight=weight)
            case "framework off":
                if framework is not None and framework.closed is None:
                    framework.hang_up()
                self.frameworks.pop(name, None)
            case "submit":
                if framework is not None and framework.closed is None:
                    key = f"k{dice.randint(1, 60)}"
                    framework.send(Submit(self.request(), (key,), (self.random_spec(),)))
            case "kill":
                if framework is not None and framework.closed is None:
                    framework.send(KillTasks(self.request(), (task_id,)))
            case "answer offers":
                if framework is not None and framework.closed is None:
                    self.answer_offers(framework)
            case "moods":
                if framework is not None and framework.closed is None:
                    moods: list[AnyMessage] = [Suppress(), Revive(), Reconcile(self.request())]
                    framework.send(dice.choice(moods))
            case "operator":
                operator = bench.operator()
                wanted = agent.name
                for message in (
                    Query(1, dice.choice(["tasks", "agents", "frameworks", "cluster"])),
                    Query(2, "explain", {"task": str(task_id)}),
                    Drain(3, wanted, undo=dice.random() < 0.5),  # type: ignore[arg-type]
                ):
                    operator.send(message)
                if dice.random() < 0.2:
                    operator.send(Forget(4, wanted))  # type: ignore[arg-type]
            case "unsubscribe":
                if framework is not None and framework.closed is None and dice.random() < 0.2:
                    framework.send(Unsubscribe(self.request()))
            case "time":
                bench.advance(dice.choice([0.1, 5, 60]))
            case "restart":
                if dice.random() < 0.5:
                    bench.restart(away_s=dice.choice([0, 30]))
                    self.frameworks.clear()
                    for other in self.agents:
                        other.peer = None
        for other in self.agents:
            other.read()

    def answer_offers(self, framework: Peer) -> None:
        gone = {i for m in framework.take(Rescind) for i in m.offer_ids}
        ids = [o.id for m in framework.take(Offers) for o in m.offers if o.id not in gone]
        for offer_id in ids:
            if self.dice.random() < 0.5:
                framework.send(Decline((offer_id,), self.dice.choice([0.0, 5.0, 1e12])))
            else:
                key = f"o{self.request()}"
                framework.send(Accept(self.requests, (offer_id,), (key,), (self.random_spec(),)))

    def calm_down(self) -> None:
        """Everybody comes back, works on honestly, and stays."""
        bench = self.bench
        operator = bench.operator()
        for agent in self.agents:
            operator.send(Drain(1, agent.name, undo=True))  # type: ignore[arg-type]
        for turn in range(90):
            for agent in self.agents:
                if turn % 10 == 0 and agent.peer is not None and agent.peer.closed is None:
                    # An agent that lied about its own runs is believed until it registers again.
                    agent.peer.hang_up()
                    agent.peer = None
                if agent.peer is None or agent.peer.closed is not None:
                    agent.incarnation += 1
                    agent.connect(bench)
                agent.read()
                for task_id, run in list(agent.runs.items()):
                    agent.report(task_id, run, TaskState.RUNNING, Reason.STARTED)
                    agent.report(task_id, run, TaskState.FINISHED, Reason.EXITED)
                    agent.runs.pop(task_id, None)
                assert agent.peer is not None
                agent.peer.send(Inventory(totals=Resources.parse("cpus:4;mem:100;ports:[1-9]")))
                agent.peer.send(Heartbeat())
                agent.read()
            for peer in self.frameworks.values():
                for message in peer.take(Offers):
                    if peer.closed is None:
                        peer.send(Decline(tuple(o.id for o in message.offers), 1e6))
            bench.advance(7)


MOVES = (
    ["agent on"] * 5
    + ["agent off"] * 2
    + ["agent dies"]
    + ["agent works"] * 12
    + ["agent lies"] * 2
    + ["agent shrinks"]
    + ["framework on"] * 3
    + ["framework off"]
    + ["submit"] * 8
    + ["kill"] * 2
    + ["answer offers"] * 4
    + ["moods"]
    + ["operator"]
    + ["unsubscribe"]
    + ["time"] * 6
    + ["restart"]
)


@pytest.mark.parametrize("seed", range(80))
def test_books_stay_right_and_everything_comes_to_an_end(bench: MasterBench, seed: int) -> None:
    history = History(bench, seed)
    for _ in range(STEPS):
        history.step()
    history.calm_down()
    for task in bench.state.tasks.values():
        assert task.state.terminal or (
            task.state is TaskState.PENDING and "cpus:99" in str(task.spec.resources)
        ), (seed, task.id, [(e.state.name, e.reason, e.message) for e in task.story])
    for agent in bench.state.agents.values():
        assert not agent.holdings, (seed, agent.id)
        assert not agent.ghosts, (seed, agent.id)
