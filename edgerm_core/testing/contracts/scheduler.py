"""What every scheduler must do: one test for each sentence of `interfaces.Scheduler`.

    class TestMyScheduler(SchedulerContract):
        @pytest.fixture
        def make_scheduler(self): return MyScheduler

Who is served first is the scheduler's own affair; the suite asks only what the master relies on.
"""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pytest

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Preference, parse_constraint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import OfferProposal, Placement, Scheduler
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.clusters import Cluster, task_spec
from edgerm_core.testing.contracts.alarm import TimelyContract

MakeScheduler = Callable[[], Scheduler]

BURST_AGENTS: Final = 25
"""Each takes a hundred tasks of a burst."""


def agent_info(name: str, resources: str = "cpus:4;mem:1024", **fields: object) -> AgentInfo:
    """Return an agent with the executor `process` and these totals."""
    base: dict[str, object] = {
        "id": AgentId(name),
        "totals": Resources.parse(resources),
        "executors": (Fingerprint("process"),),
    }
    return AgentInfo(**(base | fields))  # type: ignore[arg-type]


def random_spec(rng: random.Random) -> TaskSpec:
    """Return one of the many ways to ask for something."""
    parts = [f"cpus:{rng.choice(['0.5', '1', '2', '3.5'])}", f"mem:{rng.choice([64, 256, 900])}"]
    if rng.random() < 0.3:
        parts.append(rng.choice(["ports:2", "ports:[31000-31001]", "zones:{a}", "zones:1"]))
    devices = (DeviceRequest("camera"),) if rng.random() < 0.2 else ()
    executors = rng.choice([("process",), ("wasm",), ("wasm", "process"), ("docker",)])
    spec = task_spec(";".join(parts), executors=executors, devices=devices)
    constraint = parse_constraint(rng.choice(["os==linux", "floor>=2", "not exists battery"]))
    if rng.random() < 0.3:
        spec = _replace(spec, constraints=(constraint,))
    if rng.random() < 0.3:
        spec = _replace(spec, preferences=(Preference(constraint, 2.0),))
    return spec


def random_agent(rng: random.Random, name: str) -> AgentInfo:
    """Return one of many kinds of agent."""
    totals = rng.choice(
        [
            "cpus:4;mem:1024;ports:[31000-31009]",
            "cpus:1;mem:256",
            "cpus:16;mem:8192;zones:{a,b}",
            "mem:64",
            "cpus:2",
            "",
        ]
    )
    devices = (Device("cam0", "camera"), Device("cam1", "camera", 2, healthy=rng.random() < 0.7))
    return agent_info(
        name,
        totals,
        devices=devices if rng.random() < 0.4 else (),
        executors=tuple(Fingerprint(e) for e in rng.choice([("process",), ("wasm", "process"), ()])),
        attributes=rng.choice([{"os": "linux"}, {"os": "linux", "floor": 3}, {"battery": True}, {}]),
        max_tasks=rng.choice([0, 0, 0, 1, 3]),
    )


def disturb(cluster: Cluster, rng: random.Random) -> None:
    """Let something happen to the cluster."""
    frameworks = sorted(cluster.frameworks)
    match rng.randrange(9):
        case 0:
            cluster.add_agent(random_agent(rng, f"a{rng.randrange(8)}"))
        case 1 if cluster.agents:
            cluster.remove_agent(rng.choice(sorted(cluster.agents)))
        case 2:
            if (name := f"f{rng.randrange(5)}") not in cluster.frameworks:
                cluster.add_framework(
                    name,
                    role=rng.choice(["", "lab", "lab/sensing"]),
                    weight=rng.choice([500, 1000, 3000]),
                    wants_offers=rng.random() < 0.3,
                )
        case 3 if frameworks and rng.random() < 0.3:
            cluster.remove_framework(rng.choice(frameworks))
        case 4 | 5 if frameworks:
            cluster.submit(FrameworkId(rng.choice(frameworks)), random_spec(rng), rng.randrange(1, 6))
        case 6 if cluster.waiting:
            cluster.withdraw(rng.choice(sorted(cluster.waiting)))
        case 7 if cluster.waiting and cluster.agents:
            cluster.avoid(rng.choice(sorted(cluster.waiting)), {rng.choice(sorted(cluster.agents))})
        case _ if cluster.holdings:
            number = rng.choice(sorted(cluster.holdings))
            if number < 0:
                cluster.decline(number, refuse_s=rng.choice([0.0, 5.0]))
            else:
                cluster.end(number)
    cluster.now += rng.choice([0.0, 0.0, 1.0, 30.0])


class SchedulerContract(TimelyContract):
    """Subclass it and provide the fixture `make_scheduler`."""

    def test_an_empty_cluster_has_no_decisions(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        assert list(scheduler.schedule(cluster.snapshot(complete=True))) == []
        assert list(scheduler.schedule(cluster.snapshot())) == []

    def test_what_fits_is_placed_and_what_does_not_fit_waits(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:2;mem:128"))
        framework = cluster.add_framework("f1")
        fitting = cluster.submit(framework, task_spec("cpus:1;mem:64"), 2)
        too_big = cluster.submit(framework, task_spec("cpus:3"))
        cluster.run(make_scheduler(), complete=True)
        assert sorted(cluster.holdings) == fitting
        assert sorted(cluster.waiting) == too_big
        assert not cluster.refusals

    def test_a_task_goes_only_where_an_executor_runs_it(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", executors=(Fingerprint("docker", healthy=False),)))
        cluster.add_agent(agent_info("a2", executors=(Fingerprint("wasm"),)))
        framework = cluster.add_framework("f1")
        cluster.submit(framework, task_spec("cpus:1", executors=("docker",)))
        [either] = cluster.submit(framework, task_spec("cpus:1", executors=("docker", "wasm")))
        assert cluster.run(make_scheduler(), complete=True) == [Placement(either, AgentId("a2"))]

    def test_constraints_hold(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", attributes={"zone": "north"}))
        cluster.add_agent(agent_info("a2", attributes={"zone": "south"}))
        framework = cluster.add_framework("f1")
        spec = _replace(task_spec("cpus:1"), constraints=(parse_constraint("zone in south,west"),))
        [task_id] = cluster.submit(framework, spec)
        assert cluster.run(make_scheduler(), complete=True) == [Placement(task_id, AgentId("a2"))]

    def test_an_exclusive_device_is_given_to_one(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", devices=(Device("cam0", "camera"),)))
        framework = cluster.add_framework("f1")
        cluster.submit(framework, task_spec("cpus:0.1", devices=(DeviceRequest("camera"),)), 2)
        assert len(cluster.run(make_scheduler(), complete=True)) == 1
        assert not cluster.refusals

    def test_the_same_port_is_not_given_twice_on_an_agent(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:4;ports:[80-90]"))
        cluster.add_agent(agent_info("a2", "cpus:4;ports:[80-90]"))
        framework = cluster.add_framework("f1")
        cluster.submit(framework, task_spec("cpus:1;ports:[80-80]"), 3)
        assert len(cluster.run(make_scheduler(), complete=True)) == 2
        assert not cluster.refusals

    def test_an_agent_to_avoid_is_better_than_none(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        cluster.add_agent(agent_info("a2", "cpus:1"))
        framework = cluster.add_framework("f1")
        tasks = cluster.submit(framework, task_spec("cpus:1"), 2)
        for task_id in tasks:
            cluster.avoid(task_id, {AgentId("a1")})
        assert cluster.run(make_scheduler(), complete=True) == [
            Placement(tasks[0], AgentId("a2")),
            Placement(tasks[1], AgentId("a1")),
        ]

    def test_a_task_that_asks_for_nothing_needs_an_agent_all_the_same(
        self, make_scheduler: MakeScheduler
    ) -> None:
        cluster = Cluster()
        framework = cluster.add_framework("f1")
        [task_id] = cluster.submit(framework, task_spec(""))
        scheduler = make_scheduler()
        assert cluster.run(scheduler, complete=True) == []
        cluster.add_agent(agent_info("a1", ""))
        assert cluster.run(scheduler) == [Placement(task_id, AgentId("a1"))]

    def test_an_agent_gets_no_more_tasks_than_it_takes(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:9", max_tasks=2))
        cluster.add_agent(agent_info("a2", "cpus:9", max_tasks=1))
        framework = cluster.add_framework("f1")
        cluster.submit(framework, task_spec(""), 3)
        cluster.submit(framework, task_spec("cpus:1"), 3)
        scheduler = make_scheduler()
        first = cluster.run(scheduler, complete=True)
        assert sorted(decision.agent_id for decision in first) == ["a1", "a1", "a2"]
        assert not cluster.refusals
        assert isinstance(first[0], Placement)
        cluster.end(int(first[0].task_id))
        (next_one,) = cluster.run(scheduler)
        assert next_one.agent_id == first[0].agent_id

    def test_one_call_does_not_give_the_same_thing_twice(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        for name in ("f1", "f2"):
            cluster.submit(cluster.add_framework(name), task_spec("cpus:1"), 3)
        assert len(make_scheduler().schedule(cluster.snapshot(complete=True))) == 1

    def test_changes_are_enough_to_keep_up(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        framework = cluster.add_framework("f1")
        first, second = cluster.submit(framework, task_spec("cpus:1"), 2)
        assert cluster.run(scheduler, complete=True) == [Placement(first, AgentId("a1"))]
        assert cluster.run(scheduler) == []
        cluster.end(first)
        assert cluster.run(scheduler) == [Placement(second, AgentId("a1"))]
        [third] = cluster.submit(framework, task_spec("cpus:2"))
        assert cluster.run(scheduler) == []
        cluster.add_agent(agent_info("a2", "cpus:2"))
        assert cluster.run(scheduler) == [Placement(third, AgentId("a2"))]

    def test_a_refused_decision_is_made_again_when_it_fits(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        framework = cluster.add_framework("f1")
        [task_id] = cluster.submit(framework, task_spec("cpus:1"))
        lost = scheduler.schedule(cluster.snapshot(complete=True))
        cluster.forget_changes()
        assert list(lost) == [Placement(task_id, AgentId("a1"))]
        cluster.submit(framework, task_spec("cpus:5"))
        assert cluster.run(scheduler) == [Placement(task_id, AgentId("a1"))]

    def test_a_complete_snapshot_means_other_books(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        before = Cluster()
        before.add_agent(agent_info("gone", "cpus:9"))
        before.submit(before.add_framework("f0"), task_spec("cpus:1"), 3)
        before.submit(FrameworkId("f0"), task_spec("cpus:99"), 3)
        before.run(scheduler, complete=True)

        def after() -> Cluster:
            cluster = Cluster()
            cluster.add_agent(agent_info("a1", "cpus:2"))
            for name in ("f1", "f2"):
                cluster.submit(cluster.add_framework(name), task_spec("cpus:1"), 2)
            return cluster

        assert after().run(scheduler, complete=True) == after().run(make_scheduler(), complete=True)

    def test_whoever_wants_offers_gets_what_is_free(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1"))
        framework = cluster.add_framework("f1", wants_offers=True)
        cluster.add_framework("f2")
        scheduler = make_scheduler()
        assert cluster.run(scheduler, complete=True) == [OfferProposal(framework, AgentId("a1"))]
        assert cluster.run(scheduler) == []

    def test_what_was_refused_is_not_offered_again_until_there_is_more(
        self, make_scheduler: MakeScheduler
    ) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:2;mem:512"))
        other = cluster.add_framework("f2")
        [task_id] = cluster.submit(other, task_spec("cpus:1;mem:64"))
        scheduler = make_scheduler()
        cluster.run(scheduler, complete=True)
        framework = cluster.add_framework("f1", wants_offers=True)
        offer = OfferProposal(framework, AgentId("a1"))
        assert cluster.run(scheduler) == [offer]
        cluster.decline(min(cluster.holdings), refuse_s=60.0)
        assert cluster.run(scheduler) == []
        cluster.end(task_id)
        assert cluster.run(scheduler) == [offer]

    def test_an_agent_that_is_full_is_not_offered(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        cluster.add_framework("f1", wants_offers=True)
        other = cluster.add_framework("f0")
        cluster.submit(other, task_spec("cpus:1"))
        scheduler = make_scheduler()
        cluster.run(scheduler, complete=True)
        assert len(cluster.holdings) == 1
        assert not cluster.refusals

    def test_who_has_gone_is_not_served(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        framework = cluster.add_framework("f1")
        tasks = cluster.submit(framework, task_spec("cpus:1"), 3)
        cluster.run(scheduler, complete=True)
        cluster.withdraw(tasks[1])
        cluster.remove_agent(AgentId("a1"))
        assert cluster.run(scheduler) == []
        cluster.remove_framework(framework)
        cluster.add_agent(agent_info("a1", "cpus:1"))
        assert cluster.run(scheduler) == []
        assert not cluster.refusals

    def test_a_task_of_an_unknown_framework_harms_nobody(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        stray = cluster.add_framework("f1")
        cluster.submit(stray, task_spec("cpus:1"))
        del cluster.frameworks[stray]
        [task_id] = cluster.submit(cluster.add_framework("f2"), task_spec("cpus:1"))
        cluster.run(scheduler, complete=True)
        assert sorted(cluster.holdings) == [task_id]

    def test_zero_totals_and_shrunk_agents_harm_nobody(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:4;mem:64"))
        framework = cluster.add_framework("f1")
        tasks = cluster.submit(framework, task_spec("cpus:3"), 2)
        cluster.run(scheduler, complete=True)
        cluster.add_agent(agent_info("a1", "cpus:1"))
        assert cluster.run(scheduler) == []
        cluster.add_agent(agent_info("a1", ""))
        assert cluster.run(scheduler) == []
        cluster.end(tasks[0])
        cluster.add_agent(agent_info("a1", "cpus:4"))
        assert cluster.run(scheduler) == [Placement(tasks[1], AgentId("a1"))]

    def test_a_task_goes_nowhere_where_its_launch_is_too_large(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:4")).max_message_bytes = 1024
        cluster.add_agent(agent_info("a2", "cpus:1"))
        framework = cluster.add_framework("f1")
        large = msgspec.structs.replace(task_spec("cpus:1"), env={"TEXT": "x" * 4096})
        [task_id, _] = cluster.submit(framework, large, 2)
        assert cluster.run(make_scheduler(), complete=True) == [Placement(task_id, AgentId("a2"))]
        assert not cluster.refusals

    def test_a_burst_is_placed_to_the_last_task(self, make_scheduler: MakeScheduler) -> None:
        """However it is cut into calls: the master calls again while decisions keep coming."""
        cluster = Cluster()
        for number in range(BURST_AGENTS):
            cluster.add_agent(agent_info(f"a{number:02}", "cpus:100"))
        for name in ("f1", "f2"):
            cluster.submit(cluster.add_framework(name), task_spec("cpus:1"), BURST_AGENTS * 50)
        cluster.run(make_scheduler(), complete=True)
        assert len(cluster.waiting) == 0
        assert not cluster.refusals

    def test_decisions_are_placements_and_offer_proposals(self, make_scheduler: MakeScheduler) -> None:
        cluster = Cluster()
        cluster.add_agent(agent_info("a1"))
        cluster.submit(cluster.add_framework("f1"), task_spec("cpus:1"))
        cluster.add_framework("f2", wants_offers=True)
        decisions = make_scheduler().schedule(cluster.snapshot(complete=True))
        assert isinstance(decisions, Sequence), f"schedule returned {type(decisions).__name__}"
        for decision in decisions:
            assert isinstance(decision, Placement | OfferProposal), f"{decision!r} is not a decision"

    def test_it_changes_nothing_of_what_it_is_shown(self, make_scheduler: MakeScheduler) -> None:
        """The snapshot is a window on the master's books: what is written there is written into them."""
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:3", attributes={"os": "linux"}))
        framework = cluster.add_framework("f1", wants_offers=True)
        cluster.submit(framework, task_spec("cpus:1"))
        scheduler = make_scheduler()
        cluster.step(scheduler, complete=True)
        cluster.submit(framework, task_spec("cpus:1"))
        cluster.avoid(cluster.submit(framework, task_spec("cpus:9"))[0], {AgentId("a1")})
        before = copy.deepcopy(_shown(cluster))
        scheduler.schedule(cluster.snapshot())
        assert _shown(cluster) == before

    def test_it_keeps_no_snapshot_and_no_agent_that_has_gone(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        for name in ("a1", "a2"):
            cluster.add_agent(agent_info(name))
        cluster.submit(cluster.add_framework("f1"), task_spec("cpus:1"), 3)
        snapshot = cluster.snapshot(complete=True)
        scheduler.schedule(snapshot)
        cluster.forget_changes()
        kept: list[weakref.ref[object]] = [
            weakref.ref(snapshot),
            weakref.ref(cluster.agents[AgentId("a1")]),
        ]
        del snapshot
        cluster.remove_agent(AgentId("a1"))
        scheduler.schedule(cluster.snapshot())
        gc.collect()
        assert [ref() for ref in kept] == [None, None], "it keeps more than ids and numbers"

    @pytest.mark.parametrize("seed", range(20))
    def test_no_life_of_a_cluster_makes_it_fail_or_propose_what_does_not_fit(
        self, make_scheduler: MakeScheduler, seed: int
    ) -> None:
        rng = random.Random(seed)
        scheduler = make_scheduler()
        cluster = Cluster()
        complete = True
        for _ in range(60):
            for _ in range(rng.randrange(6)):
                disturb(cluster, rng)
            cluster.run(scheduler, complete=complete)
            complete = rng.random() < 0.05
            assert not cluster.refusals
            cluster.check_books()

    @pytest.mark.parametrize("seed", range(5))
    def test_the_same_input_gives_the_same_decisions(
        self, make_scheduler: MakeScheduler, seed: int
    ) -> None:
        def life() -> list[list[Placement | OfferProposal]]:
            rng = random.Random(seed)
            scheduler, cluster = make_scheduler(), Cluster()
            done: list[list[Placement | OfferProposal]] = []
            for turn in range(40):
                disturb(cluster, rng)
                disturb(cluster, rng)
                done.append(cluster.run(scheduler, complete=turn == 0))
            return done

        assert life() == life()

    def test_explaining_changes_nothing_and_never_fails(self, make_scheduler: MakeScheduler) -> None:
        scheduler = make_scheduler()
        cluster = Cluster()
        cluster.add_agent(agent_info("a1", "cpus:1"))
        framework = cluster.add_framework("f1")
        cluster.submit(framework, task_spec("cpus:1"), 2)
        task = next(iter(cluster.waiting.values()))
        assert isinstance(scheduler.explain(task, cluster.snapshot(complete=True)), str)
        cluster.run(scheduler, complete=True)
        waiting = cluster.waiting[TaskId(2)]
        sentence = scheduler.explain(waiting, cluster.snapshot())
        assert "\n" not in sentence
        assert cluster.run(scheduler) == []


def _shown(cluster: Cluster) -> object:
    """Return all amounts that a snapshot shows."""
    return (
        cluster.totals,
        [(a.id, a.free, a.tasks, a.attributes, a.devices) for a in cluster.agents.values()],
        [(f.id, f.allocated, f.allocations, list(f.waiting)) for f in cluster.frameworks.values()],
        [(t.id, t.spec, t.avoid) for t in cluster.waiting.values()],
    )


def _replace(spec: TaskSpec, **changes: object) -> TaskSpec:
    return msgspec.structs.replace(spec, **changes)
