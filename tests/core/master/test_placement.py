"""Placement with schedulers that are faulty in every way: the master disposes, and goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from edgerm_core.agents import Fingerprint
from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.feasibility import check
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot
from edgerm_core.master.placement import ASK_AGAIN_S, BROKEN_OFF_RETRY_S, MAX_ROUNDS, RETRY_S
from edgerm_core.master.timelimit import TookTooLong, unlimited
from edgerm_core.messages import Drain, Heartbeat, Launch, Offers
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import MasterBench, spec

A1 = AgentId("a1")


class LooseScheduler(Scheduler):
    """Does what the test says: `decide` sees the snapshot and returns anything."""

    def __init__(self, decide: Callable[[Snapshot], Any]) -> None:
        self.decide = decide
        self.snapshots: list[bool] = []

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        self.snapshots.append(snapshot.complete)
        return self.decide(snapshot)  # type: ignore[no-any-return]


def first_fits(snapshot: Snapshot) -> list[Decision]:
    """A scheduler that works: one decision a call."""
    for framework in snapshot.frameworks.values():
        for task in framework.pending:
            for agent in snapshot.agents.values():
                if isinstance(check(task.spec, agent), Resources):
                    return [Placement(task.id, agent.id)]
    return []


def make(decide: Callable[[Snapshot], Any]) -> tuple[MasterBench, LooseScheduler]:
    scheduler = LooseScheduler(decide)
    return MasterBench(scheduler), scheduler


def nothing(_: Snapshot) -> list[Decision]:
    return []


def states(bench: MasterBench) -> list[TaskState]:
    return [task.state for task in bench.state.tasks.values()]


def test_a_scheduler_that_raises_is_named_in_the_log_and_asked_again_with_a_complete_snapshot() -> None:
    failing = True

    def decide(snapshot: Snapshot) -> list[Decision]:
        if failing:
            raise RuntimeError("index out of step")
        return first_fits(snapshot)

    bench, scheduler = make(decide)
    bench.agent("a1")
    framework = bench.framework("f1")
    bench.submit(framework, spec())
    assert states(bench) == [TaskState.PENDING]
    name = type(scheduler).__name__
    problem = f"scheduler {name} failed: RuntimeError: index out of step"
    assert any(problem in line for line in bench.reports)
    failing = False
    scheduler.snapshots.clear()
    bench.advance(RETRY_S)
    assert states(bench) == [TaskState.STAGING]
    assert scheduler.snapshots[0], "what it knew may be half updated"


def test_a_scheduler_that_was_broken_off_is_left_alone_for_a_while() -> None:
    """Every call may cost the master as much time again."""
    bench, scheduler = make(first_fits)

    def break_off(function: Callable[[], object]) -> object:
        function()
        raise TookTooLong("it did not return within 10 s, in plugin odd")

    bench.state.within = break_off
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    bench.submit(framework, spec())
    problem = f"scheduler {type(scheduler).__name__} failed: it did not return within 10 s, in plugin odd"
    assert bench.reports[-1] == f"{problem}; asked again in {BROKEN_OFF_RETRY_S:g} s"
    bench.state.within = unlimited
    scheduler.snapshots.clear()
    bench.submit(framework, spec())
    bench.live(BROKEN_OFF_RETRY_S - 1, agent)
    assert scheduler.snapshots == []
    assert bench.state.scheduler_problem == problem
    bench.live(2, agent)
    assert scheduler.snapshots[0], "what it knew may be half updated"
    assert states(bench) == [TaskState.STAGING] * 2
    assert bench.state.scheduler_problem == ""


def test_a_scheduler_that_raises_now_and_then_still_places_everything() -> None:
    calls = itertools.count()

    def decide(snapshot: Snapshot) -> list[Decision]:
        if next(calls) % 3 == 0:
            raise RuntimeError("now and then")
        return first_fits(snapshot)

    bench, _ = make(decide)
    agent = bench.agent("a1", "cpus:10;mem:1000")
    bench.submit(bench.framework("f1"), spec(instances=10))
    bench.live(20 * RETRY_S, agent)
    assert states(bench) == [TaskState.STAGING] * 10


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        5,
        [Placement(TaskId(1), A1), "place it"],
        [object()],
        [Placement("t1", A1), Placement([], A1), OfferProposal([], A1)],  # type: ignore[arg-type]
        [Placement(TaskId(1), {}), OfferProposal(FrameworkId("f1"), ["a1"])],  # type: ignore[arg-type]
    ],
    ids=[
        "none",
        "a number",
        "beside a good one",
        "another object",
        "ids of other types",
        "unhashable agents",
    ],
)
def test_garbage_among_decisions_counts_as_a_failure_and_the_next_call_counts(garbage: Any) -> None:
    """A Placement with a list for an id raised inside the master, which cut the batch short."""
    calls = itertools.count()
    bench, _ = make(lambda snapshot: garbage if next(calls) % 2 == 0 else first_fits(snapshot))
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    bench.submit(framework, spec(), spec())
    assert any("failed: TypeError" in line for line in bench.reports)
    bench.live(10, agent)
    assert states(bench) == [TaskState.STAGING] * 2


def test_more_than_fits_is_placed_only_as_far_as_it_fits() -> None:
    def decide(snapshot: Snapshot) -> list[Decision]:
        return [Placement(t.id, A1) for f in snapshot.frameworks.values() for t in f.pending]

    bench, _ = make(decide)
    agent = bench.agent("a1", "cpus:2;mem:1000")
    ids = bench.submit(bench.framework("f1"), spec(instances=5))
    assert states(bench) == [TaskState.STAGING] * 2 + [TaskState.PENDING] * 3
    assert bench.state.refused_decisions >= 3
    agent.run_to_end(ids[0])
    assert states(bench).count(TaskState.STAGING) == 2


def test_tasks_that_ask_for_nothing_are_no_more_than_the_agent_takes() -> None:
    """A board that got twenty at once dropped eighteen, and each drop counted as a loss."""
    bench = MasterBench(FirstFitScheduler())
    board = bench.agent("b1", "", max_tasks=2)
    ids = bench.submit(bench.framework("f1"), spec(resources="", instances=20))
    placed: list[TaskId] = []
    while len(placed) < len(ids):
        assert states(bench).count(TaskState.STAGING) == 2
        for launch in board.take(Launch):
            board.run_to_end(launch.task_id)
            placed.append(launch.task_id)
    assert sorted(placed) == ids
    assert not any(task.losses for task in bench.state.tasks.values())


def test_a_scheduler_that_ignores_how_many_an_agent_takes_is_refused() -> None:
    def decide(snapshot: Snapshot) -> list[Decision]:
        return [Placement(t.id, A1) for f in snapshot.frameworks.values() for t in f.pending]

    bench, _ = make(decide)
    bench.agent("a1", max_tasks=3)
    bench.submit(bench.framework("f1"), spec(resources="", instances=5))
    assert states(bench) == [TaskState.STAGING] * 3 + [TaskState.PENDING] * 2


def test_the_same_task_twice_is_placed_once() -> None:
    def decide(snapshot: Snapshot) -> list[Decision]:
        return [
            Placement(t.id, a)
            for f in snapshot.frameworks.values()
            for t in f.pending
            for a in (*snapshot.agents, *snapshot.agents)
        ]

    bench, _ = make(decide)
    bench.agent("a1")
    bench.agent("a2")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    task = bench.state.tasks[task_id]
    assert (task.state, task.attempt) == (TaskState.STAGING, 1)
    assert bench.state.refused_decisions == 3


@pytest.mark.parametrize(
    "decision",
    [
        Placement(TaskId(999), A1),
        Placement(TaskId(1), AgentId("nobody")),
        OfferProposal(FrameworkId("nobody"), A1),
        OfferProposal(FrameworkId("f1"), A1),
        OfferProposal(FrameworkId("f1"), AgentId("nobody")),
    ],
    ids=["unknown task", "unknown agent", "unknown framework", "wants no offers", "offer of nobody"],
)
def test_decisions_about_what_is_not_there_are_refused_and_counted(decision: Decision) -> None:
    bench, scheduler = make(nothing)
    bench.agent("a1")
    framework = bench.framework("f1")
    bench.submit(framework, spec())
    scheduler.decide = lambda _: [decision]
    bench.submit(framework, spec())
    assert states(bench) == [TaskState.PENDING] * 2
    assert not bench.state.offers
    assert bench.state.refused_decisions >= 1


def test_agents_that_are_away_draining_or_without_the_executor_get_nothing() -> None:
    bench, _ = make(
        lambda s: [
            Placement(t.id, AgentId(a))
            for f in s.frameworks.values()
            for t in f.pending
            for a in ("away", "drained", "other")
        ]
    )
    bench.agent("away").hang_up()
    bench.agent("drained")
    bench.operator().send(Drain(1, AgentId("drained")))
    bench.agent("other", executors=(Fingerprint("docker"), Fingerprint("test", healthy=False)))
    bench.submit(bench.framework("f1"), spec())
    assert states(bench) == [TaskState.PENDING]


def test_an_offer_of_an_agent_with_nothing_free_is_refused() -> None:
    bench, _ = make(lambda s: [OfferProposal(FrameworkId("f1"), a) for a in (*s.agents, *s.agents)])
    bench.agent("a1")
    framework = bench.framework("f1", offers=True)
    bench.submit(bench.framework("f2"), spec())
    offers = [offer for message in framework.take(Offers) for offer in message.offers]
    assert [offer.agent_id for offer in offers] == ["a1"]


def test_an_endless_answer_counts_as_a_failure_and_the_master_lives() -> None:
    """The master listed the decisions without end."""
    endless = True

    def decide(snapshot: Snapshot) -> Iterator[Decision] | list[Decision]:
        return itertools.repeat(Placement(TaskId(1), A1)) if endless else first_fits(snapshot)

    bench, _ = make(decide)
    bench.agent("a1")
    bench.submit(bench.framework("f1"), spec())
    assert states(bench) == [TaskState.PENDING]
    endless = False
    bench.advance(RETRY_S)
    assert states(bench) == [TaskState.STAGING]


def test_a_scheduler_that_hands_out_little_at_a_time_is_cut_off_and_goes_on_later() -> None:
    bench, scheduler = make(first_fits)
    agent = bench.agent("a1", "cpus:200;mem:10000")
    bench.submit(bench.framework("f1"), spec(instances=MAX_ROUNDS + 10))
    assert states(bench).count(TaskState.STAGING) == MAX_ROUNDS
    before = len(scheduler.snapshots)
    bench.live(RETRY_S, agent)
    assert states(bench).count(TaskState.STAGING) == MAX_ROUNDS + 10
    assert len(scheduler.snapshots) <= before + 12


def test_nothing_new_asks_nobody() -> None:
    bench, scheduler = make(nothing)
    agent = bench.agent("a1")
    scheduler.snapshots.clear()
    agent.send(Heartbeat())
    assert not scheduler.snapshots


def test_what_a_decision_counted_on_and_lost_is_shown_again_with_the_next_batch() -> None:
    wrong = [Placement(TaskId(1), A1)]
    bench, scheduler = make(lambda _: wrong)
    agent = bench.agent("a1", "cpus:1;mem:10")
    bench.submit(bench.framework("f1"), spec(resources="cpus:2;mem:1"))
    seen: list[tuple[set[TaskId], set[AgentId]]] = []

    def look(snapshot: Snapshot) -> list[Decision]:
        seen.append((set(snapshot.task_changes), set(snapshot.agent_changes)))
        return []

    scheduler.decide = look
    agent.send(Heartbeat())
    assert seen == [({TaskId(1)}, {A1})]


def test_while_tasks_wait_the_scheduler_is_asked_now_and_then() -> None:
    """One that sets an agent aside for a while looked at its watch only when something happened."""
    bench, scheduler = make(nothing)
    agent = bench.agent("a1")
    bench.submit(bench.framework("f1"), spec())
    later = bench.now + ASK_AGAIN_S
    scheduler.decide = lambda snapshot: first_fits(snapshot) if snapshot.now >= later else []
    bench.live(ASK_AGAIN_S / 2, agent)
    assert states(bench) == [TaskState.PENDING]
    bench.live(ASK_AGAIN_S, agent)
    assert states(bench) == [TaskState.STAGING]


def test_while_no_task_waits_nobody_is_asked_however_long() -> None:
    bench, scheduler = make(first_fits)
    agent = bench.agent("a1")
    bench.submit(bench.framework("f1"), spec())
    bench.live(2 * ASK_AGAIN_S, agent)
    scheduler.snapshots.clear()
    bench.live(5 * ASK_AGAIN_S, agent)
    assert not scheduler.snapshots
