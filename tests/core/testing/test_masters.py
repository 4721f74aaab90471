"""The master's bench: what it delivers is written before, time stops at deadlines, restarts are honest."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.master import invariants
from edgerm_core.master.settings import Settings
from edgerm_core.messages import (
    AnyMessage,
    Heartbeat,
    HeartbeatAck,
    Launch,
    Registered,
    Submitted,
    Subscribed,
    TaskUpdate,
)
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import MasterBench, Peer, spec


@pytest.fixture
def bench() -> MasterBench:
    return MasterBench(FirstFitScheduler())


class Watch(list[AnyMessage]):
    """An inbox that notes how many records there were when each message came."""

    def __init__(self, bench: MasterBench) -> None:
        super().__init__()
        self._bench = bench
        self.records: list[int] = []

    def append(self, message: AnyMessage) -> None:
        self.records.append(sum(map(len, self._bench.records.values())))
        super().append(message)


def test_nothing_is_delivered_before_it_is_written(bench: MasterBench) -> None:
    framework = bench.framework("f")
    before = sum(map(len, bench.records.values()))
    watch = framework.inbox = Watch(bench)
    bench.submit(framework, spec(), spec())
    assert watch.records
    assert min(watch.records) > before


def test_records_alone_make_the_next_master(bench: MasterBench) -> None:
    agent, framework = bench.agent("a"), bench.framework("f")
    [task_id] = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1, reason="started")
    written = {kind: dict(table) for kind, table in bench.records.items()}
    old = bench.machine
    bench.restart(away_s=7.0)
    assert bench.machine is not old
    assert bench.peers == {}
    assert bench.state.tasks[task_id].state is TaskState.RUNNING
    assert bench.records.keys() == written.keys()


def test_messages_are_kept_until_taken(bench: MasterBench) -> None:
    agent, framework = bench.agent("a"), bench.framework("f")
    assert len(agent.take(Registered)) == 1
    assert agent.take(Registered) == []
    assert len(framework.take(Subscribed)) == 1
    [task_id] = bench.submit(framework, spec())
    assert framework.take(Submitted) == [], "submit has taken it"
    [launch] = agent.take(Launch)
    assert launch.task_id == task_id
    assert framework.take(TaskUpdate)


def test_task_runs_to_the_end_that_the_agent_tells(bench: MasterBench) -> None:
    agent, framework = bench.agent("a"), bench.framework("f")
    good, bad = bench.submit(framework, spec(), spec())
    agent.run_to_end(good)
    agent.run_to_end(bad, ok=False)
    ends = {update.task_id: update.state for update in framework.take(TaskUpdate)}
    assert ends == {good: TaskState.FINISHED, bad: TaskState.FAILED}


def test_refused_submit_is_an_error_of_the_test(bench: MasterBench) -> None:
    framework = bench.framework("f")
    with pytest.raises(AssertionError, match="name"):
        bench.submit(framework, spec("no name at all"))


def test_time_stops_at_every_deadline(bench: MasterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.agent("a")
    deadline = bench.machine.next_deadline()
    assert deadline is not None
    start, seen = bench.now, []
    handle = bench.machine.handle

    def watch(event: Any, now: float) -> Any:
        seen.append(now)
        return handle(event, now)

    monkeypatch.setattr(bench.machine, "handle", watch)
    bench.advance(deadline - start + 1000.0)
    assert deadline in seen
    assert seen == sorted(seen)
    assert seen[-1] == bench.now == deadline + 1000.0


def test_agent_that_lives_keeps_its_lease_and_one_that_does_not_loses_it(bench: MasterBench) -> None:
    living, silent = bench.agent("living"), bench.agent("silent")
    bench.live(200.0, living, every_s=5.0)
    states = {agent_id: agent.state.name for agent_id, agent in bench.state.agents.items()}
    assert states == {"living": "READY", "silent": "UNREACHABLE"}
    assert len(living.take(HeartbeatAck)) >= 40
    assert silent.take(HeartbeatAck) == []


def test_hung_up_peer_is_gone_from_the_books(bench: MasterBench) -> None:
    framework = bench.framework("f")
    framework.hang_up()
    assert bench.state.frameworks["f"].state.name == "DISCONNECTED"


def test_session_that_the_master_closes_is_told_why_and_is_over(bench: MasterBench) -> None:
    session = bench.connect()
    peer = bench.peers[session]
    peer.send(Heartbeat())  # A stranger has to say who it is first.
    assert peer.closed is not None
    assert peer.closed.code == "unexpected"


def test_broken_books_are_found_at_the_next_event(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise AssertionError("the books do not add up")

    monkeypatch.setattr(invariants, "check", broken)
    with pytest.raises(AssertionError, match="the books do not add up"):
        bench.connect()


def test_settings_reach_the_machine() -> None:
    bench = MasterBench(FirstFitScheduler(), Settings(heartbeat_s=3.0))
    [registered] = bench.agent("a").take(Registered)
    assert registered.heartbeat_s == 3.0


def test_peers_are_numbered_and_separate(bench: MasterBench) -> None:
    first, second = bench.operator(), bench.operator()
    assert isinstance(first, Peer)
    assert first.session_id == SessionId(1)
    assert second.session_id == SessionId(2)
    assert first.inbox is not second.inbox


def test_task_ids_come_in_the_order_of_the_specs(bench: MasterBench) -> None:
    ids = bench.submit(bench.framework("f"), spec(instances=2), spec())
    assert ids == [TaskId(1), TaskId(2), TaskId(3)]
