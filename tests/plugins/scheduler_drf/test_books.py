"""What the scheduler remembers between calls."""

from __future__ import annotations

from fractions import Fraction

from edgerm_scheduler_drf.books import OFFERABLE, Books, framework_path, framework_weight, new_sorter
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.demand import TASKS, Demand
from edgerm_scheduler_drf.scheduler import DrfScheduler

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.interfaces import OfferProposal, Placement
from edgerm_core.resources import Resources
from edgerm_core.testing.clusters import Cluster, task_spec

CONFIG = DrfConfig()


def agent_info(name: str, totals: str, *executors: str, **attributes: str) -> AgentInfo:
    return AgentInfo(
        AgentId(name),
        totals=Resources.parse(totals),
        executors=tuple(map(Fingerprint, executors or ("process",))),
        attributes=dict(attributes),
    )


class Bench:
    """A cluster, and books that follow it."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.books = Books(CONFIG)
        self.look(complete=True)

    def look(self, *, complete: bool = False) -> None:
        self.books.take_over(self.cluster.snapshot(complete=complete), complete)
        self.cluster.forget_changes()

    def free(self, name: str) -> dict[str, int]:
        """What the index says, but for how many tasks the agent takes."""
        slot = self.books.index.slot(AgentId(name))
        assert slot is not None
        amounts = self.books.index.amounts(slot)
        del amounts[TASKS]
        return amounts

    def waiting(self, name: str) -> list[int]:
        return [
            int(task_id) for queue_id, queue in self.books.queues.items() if queue_id == name
            for task_id in sorted(queue.tasks())
        ]  # fmt: skip

    def demand(self, task_id: TaskId) -> Demand:
        return self.books.demand_of[task_id]

    def agrees_with_new_books(self) -> None:
        """Books kept up to date say the same as books made from a complete snapshot."""
        fresh = Books(CONFIG)
        fresh.take_over(self.cluster.snapshot(complete=True), True)
        kept = self.books
        assert set(kept.index.agents()) == set(fresh.index.agents())
        for agent_id in fresh.index.agents():
            slots = kept.index.slot(agent_id), fresh.index.slot(agent_id)
            assert slots[0] is not None
            assert slots[1] is not None
            assert kept.index.amounts(slots[0]) == fresh.index.amounts(slots[1])
        assert kept.versions == fresh.versions
        assert kept.paths == fresh.paths
        assert kept.ids == fresh.ids
        assert kept.offer_takers == fresh.offer_takers
        assert kept.framework_of == fresh.framework_of
        assert {k: d.key for k, d in kept.demand_of.items()} == {
            k: d.key for k, d in fresh.demand_of.items()
        }
        assert {k: d.waiting for k, d in kept.demands.items()} == {
            k: d.waiting for k, d in fresh.demands.items()
        }
        for path in fresh.ids:
            assert kept.sorter.share(path) == fresh.sorter.share(path)


def test_books_follow_the_cluster() -> None:
    bench = Bench()
    cluster = bench.cluster
    cluster.add_agent(agent_info("a", "cpus:4;mem:512;ports:[1-9]"))
    cluster.add_agent(agent_info("b", "cpus:1;mem:64"))
    lab = cluster.add_framework("f1", role="lab/sensing", weight=500)
    other = cluster.add_framework("f2", wants_offers=True)
    first, second = cluster.submit(lab, task_spec("cpus:1;ports:2"), 2)
    [third] = cluster.submit(other, task_spec("cpus:2"))
    bench.look()
    bench.agrees_with_new_books()
    assert bench.waiting("f1") == [first, second]
    assert bench.free("a") == {"cpus": 4000, "mem": 512_000, "ports": 9000, OFFERABLE: 1}
    assert bench.books.not_scalar == {"ports"}
    assert bench.books.offer_takers == {"f2"}

    assert cluster.apply(Placement(first, AgentId("a")))
    assert cluster.apply(Placement(third, AgentId("a")))
    bench.look()
    bench.agrees_with_new_books()
    assert bench.free("a")["cpus"] == 1000
    assert bench.free("a")["ports"] == 7000
    assert bench.books.sorter.share(("lab", "sensing", ":f1")) == (Fraction(2, 9), "ports")

    cluster.end(int(first))
    cluster.add_agent(agent_info("b", "cpus:8;mem:64", "wasm", zone="north"))
    cluster.add_agent(agent_info("c", "cpus:2"))
    bench.look()
    bench.agrees_with_new_books()

    cluster.remove_framework(lab)
    cluster.remove_agent(AgentId("a"))
    bench.look()
    bench.agrees_with_new_books()
    assert bench.books.index.slot(AgentId("a")) is None
    assert set(bench.books.paths) == {"f2"}
    assert not bench.books.demands


def test_offered_agent_is_not_worth_offering_again() -> None:
    bench = Bench()
    bench.cluster.add_agent(agent_info("a", "cpus:1;mem:64"))
    taker = bench.cluster.add_framework("f", wants_offers=True)
    bench.look()
    assert bench.free("a")[OFFERABLE] == 1
    assert bench.cluster.apply(OfferProposal(taker, AgentId("a")))
    bench.look()
    assert bench.free("a") == {}


def test_refused_decision_is_read_again_though_nothing_changed() -> None:
    bench = Bench()
    bench.cluster.add_agent(agent_info("a", "cpus:1;mem:64"))
    framework = bench.cluster.add_framework("f")
    [task_id] = bench.cluster.submit(framework, task_spec("cpus:1"))
    bench.look()
    books = bench.books
    # What the scheduler does with a decision, before the master has checked it.
    slot = books.index.slot(AgentId("a"))
    assert slot is not None
    books.index.take(slot, books.index.columns([("cpus", 1000)]))
    books.drop_task(task_id)
    books.placed.add(task_id)
    books.touched_agents.add(AgentId("a"))
    books.touched_frameworks.add(framework)
    bench.look()
    assert bench.waiting("f") == [task_id]
    assert bench.free("a")["cpus"] == 1000
    for noted in (books.placed, books.touched_agents, books.touched_frameworks):
        assert not noted


def test_framework_goes_while_a_refused_task_of_it_waits_again() -> None:
    """The task stood in its queue twice, and dropping it a second time ended the scheduler's call."""
    cluster = Cluster()
    cluster.add_agent(agent_info("a", "cpus:4"))
    framework = cluster.add_framework("f")
    cluster.submit(framework, task_spec("cpus:1"), 2)
    scheduler = DrfScheduler(DrfConfig(max_decisions=1))
    assert scheduler.schedule(cluster.snapshot(complete=True)) == [Placement(TaskId(1), AgentId("a"))]
    cluster.forget_changes()
    cluster.remove_agent(AgentId("a"))
    assert scheduler.schedule(cluster.snapshot()) == []
    cluster.forget_changes()
    cluster.remove_framework(framework)
    assert scheduler.schedule(cluster.snapshot()) == []


def test_tasks_that_ask_for_the_same_share_a_demand_until_the_last_is_gone() -> None:
    bench = Bench()
    framework = bench.cluster.add_framework("f")
    tasks = bench.cluster.submit(framework, task_spec("cpus:1"), 2)
    tasks += bench.cluster.submit(framework, task_spec("cpus:1", name="another"))
    bench.look()
    assert len({bench.demand(task_id) for task_id in tasks}) == 1
    assert bench.demand(tasks[0]).waiting == 3
    bench.cluster.avoid(tasks[1], [AgentId("a")])
    bench.look()
    assert bench.demand(tasks[1]) is not bench.demand(tasks[0])
    for task_id in tasks:
        bench.cluster.withdraw(task_id)
    bench.look()
    assert not bench.books.demands
    assert not bench.books.demand_of


def test_blocked_demand_is_woken_by_an_agent_that_may_do() -> None:
    bench = Bench()
    bench.cluster.add_agent(agent_info("a", "cpus:1"))
    framework = bench.cluster.add_framework("f")
    [task_id] = bench.cluster.submit(framework, task_spec("cpus:4"))
    bench.look()
    demand = bench.demand(task_id)
    bench.books.block(demand, 17.0)
    assert bench.books.queues[framework].next() is None
    bench.books.ready.discard(framework)

    bench.cluster.add_agent(agent_info("b", "cpus:3"))
    bench.cluster.add_agent(agent_info("c", "mem:1000"))
    bench.look()
    assert bench.books.blocked == {demand.signature: {demand}}, "none of them has enough"
    bench.cluster.add_agent(agent_info("d", "cpus:4"))
    bench.look()
    assert not demand.blocked
    assert demand.blocked_since == 17.0, "it has waited since then"
    assert framework in bench.books.ready
    assert bench.books.queues[framework].next() == (task_id, demand)
    assert not bench.books.blocked


def test_hopeless_demand_is_shown_again_when_an_agent_comes() -> None:
    bench = Bench()
    framework = bench.cluster.add_framework("f")
    [task_id] = bench.cluster.submit(framework, task_spec("cpus:4"))
    bench.look()
    demand, queue = bench.demand(task_id), bench.books.queues[framework]
    bench.books.block(demand, 0.0)
    assert queue.next() is None
    assert queue.oldest_parked() == (task_id, demand)
    bench.books.give_up_hope(framework, demand)
    assert queue.oldest_parked() is None
    bench.cluster.add_agent(agent_info("a", "cpus:1"))
    bench.look()
    assert queue.oldest_parked() == (task_id, demand)
    assert not bench.books.hopeless


def test_reservation_ends_with_its_task_and_the_agent_is_open_again() -> None:
    bench = Bench()
    bench.cluster.add_agent(agent_info("a", "cpus:4"))
    framework = bench.cluster.add_framework("f")
    [task_id] = bench.cluster.submit(framework, task_spec("cpus:4"))
    bench.look()
    books = bench.books
    slot = books.index.slot(AgentId("a"))
    assert slot is not None
    made = books.reservations.make(task_id, framework, task_spec("cpus:4"), bench.cluster.agents, 0.0)
    assert made is not None
    books.index.hidden.add(slot)
    bench.cluster.withdraw(task_id)
    bench.look()
    assert books.reservations.of_task(task_id) is None
    assert not books.index.hidden


def test_framework_stands_below_its_role() -> None:
    cluster = Cluster()
    alone = cluster.frameworks[cluster.add_framework("f1", weight=2500)]
    inside = cluster.frameworks[cluster.add_framework("f2", role="lab/sensing", weight=0)]
    assert framework_path(alone) == (":f1",)
    assert framework_path(inside) == ("lab", "sensing", ":f2")
    assert framework_weight(alone) == Fraction(5, 2)
    assert framework_weight(inside) == Fraction(1, 1000), "a weight of nothing would divide by zero"


def test_new_sorter_knows_weights_and_exclusions() -> None:
    sorter = new_sorter(DrfConfig(exclude=("mem",), role_weights={"lab": 2}))
    sorter.set_totals({"cpus": 10, "mem": 10})
    sorter.put(("lab", ":a"), {"cpus": 3, "mem": 9}, 0)
    sorter.put(("ops", ":b"), {"cpus": 2}, 0)
    # A weighted share of 3/10/2 stands before one of 2/10.
    assert list(sorter.order()) == [("lab", ":a"), ("ops", ":b")]
    assert sorter.share(("lab", ":a")) == (Fraction(3, 10), "cpus")
