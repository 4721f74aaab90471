"""The cluster for schedulers notes every change, keeps the books, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.testing import clusters
from edgerm_core.testing.clusters import Cluster, task_spec

A, B = AgentId("a"), AgentId("b")


def agent_info(
    name: str = "a", totals: str = "cpus:4;mem:100", devices: tuple[Device, ...] = ()
) -> AgentInfo:
    return AgentInfo(
        AgentId(name),
        totals=Resources.parse(totals),
        executors=(Fingerprint("process"), Fingerprint("wasm", healthy=False)),
        devices=devices,
    )


def changes(cluster: Cluster) -> tuple[set[str], set[str], set[int]]:
    """What a scheduler would be told, which forgets it."""
    seen = cluster.snapshot()
    cluster.forget_changes()
    return set(seen.agent_changes), set(seen.framework_changes), set(seen.task_changes)


@pytest.fixture
def cluster() -> Cluster:
    """One agent, two frameworks, three tasks of the first; nothing of it is news."""
    made = Cluster()
    made.add_agent(agent_info())
    made.submit(made.add_framework("f"), task_spec("cpus:1"), 3)
    made.add_framework("o", wants_offers=True)
    made.forget_changes()
    return made


F, TAKER = FrameworkId("f"), FrameworkId("o")
T1, T2, T3 = map(TaskId, (1, 2, 3))


def test_every_change_is_noted_once(cluster: Cluster) -> None:
    assert changes(cluster) == (set(), set(), set())
    cluster.add_agent(agent_info("b"))
    assert changes(cluster) == ({"b"}, set(), set())
    cluster.add_agent(agent_info("b", "cpus:1"))
    assert changes(cluster) == ({"b"}, set(), set())
    cluster.submit(F, task_spec(), 2)
    assert changes(cluster) == (set(), set(), {4, 5})
    cluster.avoid(T1, [A])
    assert changes(cluster) == (set(), set(), {1})
    assert cluster.apply(Placement(T1, A))
    assert changes(cluster) == ({"a"}, {"f"}, {1})
    cluster.end(1)
    assert changes(cluster) == ({"a"}, {"f"}, set())
    assert cluster.apply(OfferProposal(TAKER, B))
    assert changes(cluster) == ({"b"}, {"o"}, set())
    cluster.decline(-1, 5.0)
    assert changes(cluster) == ({"b"}, {"o"}, set())
    cluster.withdraw(T2)
    assert changes(cluster) == (set(), set(), {2})
    cluster.remove_agent(B)
    assert changes(cluster) == ({"b"}, set(), set())
    cluster.remove_framework(F)
    assert changes(cluster) == (set(), {"f"}, {3, 4, 5})


def test_changes_stay_until_the_scheduler_has_seen_them(cluster: Cluster) -> None:
    cluster.add_agent(agent_info("b"))
    assert cluster.snapshot().agent_changes == {"b"}
    assert cluster.snapshot().agent_changes == {"b"}
    cluster.forget_changes()
    assert cluster.snapshot().agent_changes == set()


def test_complete_snapshot_names_everything(cluster: Cluster) -> None:
    seen = cluster.snapshot(complete=True)
    assert seen.agent_changes == {"a"}
    assert seen.framework_changes == {"f", "o"}
    assert seen.task_changes == {1, 2, 3}


def test_snapshot_is_a_window(cluster: Cluster) -> None:
    seen = cluster.snapshot()
    assert cluster.apply(Placement(T1, A))
    assert seen.agents[A].free.scalars["cpus"] == 3000
    assert seen.pending_task(T1) is None
    assert [task.id for task in seen.frameworks[F].pending] == [2, 3]
    assert seen.frameworks[F].pending_count == 2


def test_static_version_is_never_seen_twice(cluster: Cluster) -> None:
    versions = [cluster.agents[A].static_version]
    versions.append(cluster.add_agent(agent_info()).static_version)
    cluster.remove_agent(A)
    versions.append(cluster.add_agent(agent_info()).static_version)
    assert versions == sorted(set(versions))
    assert cluster.apply(Placement(T1, A))
    assert cluster.agents[A].static_version == versions[-1], "only what is free has changed"


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (Placement(T1, B), "no such agent"),
        (Placement(TaskId(9), A), "the task does not wait"),
        (OfferProposal(F, A), "the framework takes no offers"),
        (OfferProposal(FrameworkId("x"), A), "the framework takes no offers"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    cluster: Cluster, decision: Decision, sentence: str
) -> None:
    assert not cluster.apply(decision)
    [refusal] = cluster.refusals
    assert sentence in refusal
    assert changes(cluster) == (set(), set(), set())


def test_what_does_not_fit_any_more_is_refused(cluster: Cluster) -> None:
    [big] = cluster.submit(F, task_spec("cpus:4"))
    assert cluster.apply(Placement(T1, A))
    assert not cluster.apply(Placement(big, A))
    assert "cpus: wants 4, has 3" in cluster.refusals[0]
    assert cluster.apply(OfferProposal(TAKER, A))
    assert not cluster.apply(OfferProposal(TAKER, A))
    assert "nothing is free there" in cluster.refusals[1]


def test_task_for_an_executor_that_is_not_well_is_refused(cluster: Cluster) -> None:
    [task_id] = cluster.submit(F, task_spec(executors=["wasm"]))
    assert not cluster.apply(Placement(task_id, A))


def test_totals_and_allocations_count_healthy_devices_by_type(cluster: Cluster) -> None:
    cameras = (Device("cam0", "camera", slots=2), Device("cam1", "camera", healthy=False))
    cluster.add_agent(agent_info(devices=cameras))
    assert cluster.totals == {"cpus": 4000, "mem": 100_000, "device/camera": 2000}
    [task_id] = cluster.submit(F, task_spec("cpus:1", devices=[DeviceRequest("camera")]))
    assert cluster.apply(Placement(task_id, A))
    assert cluster.frameworks[F].allocated == {"cpus": 1000, "device/camera": 1000}
    assert cluster.frameworks[F].allocations == 1
    cluster.end(int(task_id))
    assert cluster.frameworks[F].allocated == {}
    assert cluster.agents[A].free.devices == {"cam0": 2}


def test_filter_of_a_decline_holds_for_the_same_or_less_until_its_time(cluster: Cluster) -> None:
    assert cluster.apply(OfferProposal(TAKER, A))
    cluster.decline(-1, 5.0)
    free = cluster.agents[A].free
    assert cluster.snapshot().refused(TAKER, A, free)
    assert cluster.snapshot().refused(TAKER, A, Resources.parse("cpus:1"))
    assert not cluster.snapshot().refused(TAKER, A, free + Resources.parse("cpus:1"))
    assert not cluster.snapshot().refused(F, A, free)
    cluster.now = 5.0
    assert not cluster.snapshot().refused(TAKER, A, free)


def test_tasks_of_a_lost_agent_are_charged_to_nobody(cluster: Cluster) -> None:
    assert cluster.apply(Placement(T1, A))
    cluster.remove_agent(A)
    assert cluster.holdings == {}
    assert cluster.frameworks[F].allocated == {}
    assert set(cluster.totals.values()) == {0}
    cluster.check_books()


STEPS = st.lists(st.tuples(st.sampled_from("pPeoawrs"), st.integers(0, 9)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_books_add_up_whatever_happens(steps: list[tuple[str, int]]) -> None:
    cluster = Cluster()
    cluster.add_framework("f", wants_offers=True)
    for what, number in steps:
        waiting, held = sorted(cluster.waiting), sorted(cluster.holdings)
        match what:
            case "a":
                cluster.add_agent(
                    agent_info(f"a{number % 3}", f"cpus:{1 + number % 4};ports:[1-{number + 1}]")
                )
            case "r" if (gone := AgentId(f"a{number % 3}")) in cluster.agents:
                cluster.remove_agent(gone)
            case "s":
                cluster.submit(F, task_spec(f"cpus:{1 + number % 3};ports:1"))
            case "p" | "P" if waiting:
                cluster.apply(Placement(waiting[number % len(waiting)], AgentId(f"a{number % 3}")))
            case "o":
                cluster.apply(OfferProposal(F, AgentId(f"a{number % 3}")))
            case "e" if held:
                cluster.end(held[number % len(held)])
            case "w" if waiting:
                cluster.withdraw(waiting[number % len(waiting)])
        cluster.check_books()
        assert cluster.waiting.keys() == cluster.frameworks[F].waiting.keys()
        allocated: dict[str, int] = {}
        for holding in cluster.holdings.values():
            for name, milli in holding.amounts.items():
                allocated[name] = allocated.get(name, 0) + milli
        assert cluster.frameworks[F].allocated == allocated


def test_cooked_books_are_found(cluster: Cluster) -> None:
    assert cluster.apply(Placement(T1, A))
    cluster.agents[A].held = Resources.parse("cpus:2")
    with pytest.raises(AssertionError, match="a holds cpus:2, its tasks cpus:1"):
        cluster.check_books()


class ByRote(Scheduler):
    """Returns what it was given, call by call, and remembers what it was shown."""

    def __init__(self, *calls: Sequence[Decision]) -> None:
        self.calls = list(calls)
        self.complete: list[bool] = []

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        self.complete.append(snapshot.complete)
        return self.calls.pop(0) if self.calls else []


def test_run_goes_on_until_there_are_no_more_decisions(cluster: Cluster) -> None:
    scheduler = ByRote([Placement(T1, A), Placement(T2, B)], [Placement(T3, A)])
    assert cluster.run(scheduler, complete=True) == [Placement(T1, A), Placement(T3, A)]
    assert scheduler.complete == [True, False, False]
    assert len(cluster.refusals) == 1


def test_scheduler_that_never_comes_to_an_end_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Scheduler):
        def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
            cluster.submit(F, task_spec())
            return [Placement(max(cluster.waiting), A)]

    monkeypatch.setattr(clusters, "MAX_CALLS", 20)
    with pytest.raises(AssertionError, match="Endless still had decisions after 20 calls"):
        cluster.run(Endless())


def test_replay_shows_the_books_before_each_decision(cluster: Cluster) -> None:
    free = [
        cluster.agents[A].free.scalars["cpus"] for _ in cluster.replay([Placement(T1, A), Placement(T2, A)])
    ]
    assert free == [4000, 3000]
    with pytest.raises(AssertionError, match="the task does not wait"):
        list(cluster.replay([Placement(T1, A)]))


def test_spec_asks_for_what_it_was_given() -> None:
    spec = task_spec("cpus:1;ports:[80]", executors=["wasm", "process"], name="n")
    assert (spec.name, str(spec.resources)) == ("n", "cpus:1;ports:[80-80]")
    assert [i.executor for i in spec.implementations] == ["wasm", "process"]
    assert msgspec.structs.replace(spec, name="task") == task_spec(
        "cpus:1;ports:[80]", executors=["wasm", "process"]
    )
