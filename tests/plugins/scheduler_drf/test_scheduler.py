"""Where tasks are placed, what is set aside, and what `explain` says."""

import msgspec
import pytest
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.scheduler import DrfScheduler

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Preference, parse_constraint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Placement
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.testing.clusters import Cluster, task_spec


def agent(name: str, totals: str, **fields: object) -> AgentInfo:
    base = {
        "id": AgentId(name),
        "totals": Resources.parse(totals),
        "executors": (Fingerprint("process"), Fingerprint("wasm")),
    }
    return AgentInfo(**(base | fields))  # type: ignore[arg-type]


def edge_cluster() -> Cluster:
    cluster = Cluster()
    cluster.add_agent(agent("server", "cpus:64;mem:262144"))
    cluster.add_agent(agent("gateway-1", "cpus:4;mem:4096"))
    cluster.add_agent(agent("gateway-2", "cpus:4;mem:4096"))
    cluster.add_agent(agent("sensor", "cpus:0.2;mem:64"))
    cluster.add_framework("f1")
    return cluster


def where(cluster: Cluster, config: DrfConfig, *demands: str) -> list[str]:
    """Return the agents on which tasks of these demands are placed, one after the other."""
    scheduler = DrfScheduler(config)
    for demand in demands:
        cluster.submit(next(iter(cluster.frameworks)), task_spec(demand))
    return [str(decision.agent_id) for decision in cluster.run(scheduler, complete=True)]


def test_a_task_that_fits_a_sensor_node_does_not_take_the_server() -> None:
    small, medium, large = "cpus:0.1;mem:16", "cpus:2;mem:1024", "cpus:8;mem:8192"
    assert where(edge_cluster(), DrfConfig(), small, medium, large) == ["sensor", "gateway-1", "server"]


def test_pack_fills_one_agent_before_the_next() -> None:
    assert where(edge_cluster(), DrfConfig(), *["cpus:2;mem:64"] * 5) == [
        "gateway-1",
        "gateway-1",
        "gateway-2",
        "gateway-2",
        "server",
    ]


def test_spread_takes_turns_among_machines_of_one_size() -> None:
    assert where(edge_cluster(), DrfConfig(strategy="spread"), *["cpus:2;mem:64"] * 5) == [
        "gateway-1",
        "gateway-2",
        "gateway-1",
        "gateway-2",
        "server",
    ]


@pytest.mark.parametrize("strategy", ["pack", "spread"])
def test_preferences_come_before_size(strategy: str) -> None:
    cluster = edge_cluster()
    cluster.add_agent(agent("big", "cpus:32;mem:65536", attributes={"gpu": True}))
    spec = task_spec("cpus:1;mem:16")
    likes = (Preference(parse_constraint("exists gpu")),)
    cluster.submit(next(iter(cluster.frameworks)), msgspec.structs.replace(spec, preferences=likes), 33)
    done = cluster.run(DrfScheduler(DrfConfig(strategy=strategy)), complete=True)  # type: ignore[arg-type]
    assert [d.agent_id for d in done] == ["big"] * 32 + ["gateway-1"]


def test_preferences_with_more_weight_win() -> None:
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:1", attributes={"near": True}))
    cluster.add_agent(agent("a2", "cpus:1", attributes={"fast": True}))
    framework = cluster.add_framework("f1")
    spec = msgspec.structs.replace(
        task_spec("cpus:1"),
        preferences=(
            Preference(parse_constraint("exists near"), 1.0),
            Preference(parse_constraint("exists fast"), 2.5),
        ),
    )
    cluster.submit(framework, spec)
    assert [d.agent_id for d in cluster.run(DrfScheduler(), complete=True)] == ["a2"]


def test_a_pinned_task_finds_its_agent_and_follows_its_facts() -> None:
    cluster = Cluster()
    for number in range(20):
        cluster.add_agent(agent(f"a{number:02}", "cpus:1", attributes={"host": f"h{number}"}))
    framework = cluster.add_framework("f1")
    pinned = msgspec.structs.replace(task_spec("cpus:1"), constraints=(parse_constraint("host==h7"),))
    scheduler = DrfScheduler()
    first, second = cluster.submit(framework, pinned, 2)
    assert cluster.run(scheduler, complete=True) == [Placement(first, AgentId("a07"))]
    cluster.add_agent(agent("a03", "cpus:1", attributes={"host": "h7"}))
    assert cluster.run(scheduler) == [Placement(second, AgentId("a03"))]


def test_devices_count_in_the_share_unless_excluded() -> None:
    def first_served(config: DrfConfig) -> list[TaskId]:
        cluster = Cluster()
        cameras = tuple(Device(f"cam{n}", "camera") for n in range(2))
        cluster.add_agent(agent("a1", "cpus:10", devices=cameras))
        f1, f2 = cluster.add_framework("f1"), cluster.add_framework("f2")
        cluster.submit(f1, task_spec("cpus:1", devices=(DeviceRequest("camera"),)))
        cluster.submit(f2, task_spec("cpus:2"))
        scheduler = DrfScheduler(config)
        cluster.run(scheduler, complete=True)
        cluster.submit(f1, task_spec("cpus:5"))
        cluster.submit(f2, task_spec("cpus:5"))
        return [d.task_id for d in cluster.run(scheduler) if isinstance(d, Placement)]

    assert first_served(DrfConfig()) == [4]
    assert first_served(DrfConfig(exclude=("device/camera",))) == [3]


def test_roles_share_first_and_then_their_frameworks() -> None:
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:12"))
    for name, role in (("f1", "lab"), ("f2", "lab"), ("f3", "ops")):
        cluster.submit(cluster.add_framework(name, role=role), task_spec("cpus:1"), 12)
    cluster.run(DrfScheduler(DrfConfig(role_weights={"lab": 2, "ops": "1"})), complete=True)
    assert {f.id: f.allocations for f in cluster.frameworks.values()} == {"f1": 4, "f2": 4, "f3": 4}


def test_work_of_one_call_is_bounded() -> None:
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:10"))
    cluster.submit(cluster.add_framework("f1"), task_spec("cpus:1"), 10)
    scheduler = DrfScheduler(DrfConfig(max_decisions=4))
    assert [len(cluster.step(scheduler)) for _ in range(4)] == [4, 4, 2, 0]


# --- setting aside ----------------------------------------------------------------------------


def starving(scheduler: DrfScheduler) -> tuple[Cluster, TaskId]:
    """Two agents full of small tasks, more of them waiting, and then a big one that fits no gap."""
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:4"))
    cluster.add_agent(agent("a2", "cpus:4"))
    other, mine = cluster.add_framework("other"), cluster.add_framework("mine")
    cluster.submit(other, task_spec("cpus:1"), 40)
    cluster.run(scheduler, complete=True)
    [big] = cluster.submit(mine, task_spec("cpus:3"))
    assert cluster.run(scheduler) == []
    return cluster, big


def test_an_agent_is_set_aside_for_a_task_that_is_passed_over_for_too_long() -> None:
    scheduler = DrfScheduler(DrfConfig(reserve_after_s=60))
    cluster, big = starving(scheduler)
    held_by = {n: h.agent_id for n, h in cluster.holdings.items()}
    on_a1 = sorted(n for n, a in held_by.items() if a == "a1")

    def end_one(number: int) -> list[str]:
        cluster.end(number)
        return [d.agent_id for d in cluster.run(scheduler)]

    assert end_one(on_a1[0]) == ["a1"]
    cluster.now = 59.0
    assert end_one(on_a1[1]) == ["a1"]
    cluster.now = 60.0
    assert end_one(on_a1[2]) == ["a1"]  # It is passed over, and has waited long enough.
    task = cluster.waiting[big]
    assert "agent a1 is set aside for this task" in scheduler.explain(task, cluster.snapshot())
    ours = sorted(n for n, h in cluster.holdings.items() if h.agent_id == "a1")
    assert end_one(ours[0]) == []
    assert end_one(ours[1]) == []
    assert end_one(ours[2]) == ["a1"]
    assert big in cluster.holdings


def test_nothing_is_set_aside_when_everybody_waits_for_the_same() -> None:
    """In a cluster that is merely full, the lowest share gets what becomes free: nobody is passed over."""
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:4"))
    for name in ("f1", "f2", "f3"):
        cluster.submit(cluster.add_framework(name), task_spec("cpus:1"), 30)
    scheduler = DrfScheduler()
    cluster.run(scheduler, complete=True)
    for _ in range(20):
        cluster.now += 100.0
        cluster.end(min(cluster.holdings))
        assert len(cluster.run(scheduler)) == 1
        waiting = [next(iter(f.pending)) for f in cluster.frameworks.values()]
        assert not any("set aside" in scheduler.explain(task, cluster.snapshot()) for task in waiting)


def test_an_agent_set_aside_is_open_again_when_the_task_is_withdrawn() -> None:
    scheduler = DrfScheduler(DrfConfig(reserve_after_s=0))
    cluster, big = starving(scheduler)
    cluster.end(min(cluster.holdings))
    cluster.run(scheduler)
    assert "set aside" in scheduler.explain(cluster.waiting[big], cluster.snapshot())
    for number in sorted(cluster.holdings):
        cluster.end(number)
    cluster.withdraw(big)
    assert len(cluster.run(scheduler)) == 8


def test_the_next_agent_is_tried_when_the_first_does_not_drain_in_time() -> None:
    scheduler = DrfScheduler(DrfConfig(reserve_after_s=0, reserve_for_s=10))
    cluster, big = starving(scheduler)
    seen: list[str] = []
    for _ in range(4):
        free = [n for n, h in cluster.holdings.items() if h.agent_id not in seen[-1:]]
        cluster.end(min(free))
        cluster.run(scheduler)
        sentence = scheduler.explain(cluster.waiting[big], cluster.snapshot())
        if "set aside" in sentence:
            seen.append(sentence.split("agent ")[1].split()[0])
        cluster.now += 25.0
    assert set(seen) == {"a1", "a2"}


def test_a_task_too_big_for_any_agent_gets_nothing_set_aside_and_harms_no_other() -> None:
    scheduler = DrfScheduler(DrfConfig(reserve_after_s=0))
    cluster, big = starving(scheduler)
    cluster.withdraw(big)
    mine = FrameworkId("mine")
    [hopeless] = cluster.submit(mine, task_spec("cpus:30"))
    [big] = cluster.submit(mine, task_spec("cpus:3"))
    cluster.run(scheduler)
    for _ in range(3):
        cluster.end(max(cluster.holdings))
        cluster.run(scheduler)
    assert "set aside" not in scheduler.explain(cluster.waiting[hopeless], cluster.snapshot())
    assert "set aside" in scheduler.explain(cluster.waiting[big], cluster.snapshot())


# --- explain ----------------------------------------------------------------------------------


def test_explain_names_the_share_and_who_comes_first() -> None:
    cluster = Cluster()
    cluster.add_agent(agent("a1", "cpus:20;mem:1000"))
    f1 = cluster.add_framework("f1", weight=2000)
    cluster.submit(f1, task_spec("cpus:9;mem:1"))
    scheduler = DrfScheduler()
    cluster.run(scheduler, complete=True)
    for name in ("f2", "f3"):
        cluster.submit(cluster.add_framework(name), task_spec("cpus:30"))
    [task_id] = cluster.submit(f1, task_spec("cpus:30"))
    assert scheduler.explain(cluster.waiting[task_id], cluster.snapshot()) == (
        "framework f1 has a dominant share of 45 % (cpus) at weight 2, "
        "2 frameworks with less are served first"
    )
    lowest = next(iter(cluster.frameworks[FrameworkId("f2")].pending))
    assert scheduler.explain(lowest, cluster.snapshot()) == (
        "framework f2 has a dominant share of 0 %, no other framework is served first"
    )
