"""What must hold for every cluster: exact order, nothing oversubscribed, nothing left that fits."""

from collections.abc import Callable
from fractions import Fraction

import msgspec
import pytest
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.scheduler import DrfScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Attributes, Constraint, Preference, parse_constraint
from edgerm_core.feasibility import check
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, Placement
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.clusters import Cluster, task_spec

SCALARS = st.builds(
    "cpus:{};mem:{}".format, st.sampled_from(["0.5", "1", "1.5", "2", "4"]), st.sampled_from([64, 200, 512])
)
EXTRAS = st.sampled_from(["", "", "", ";ports:1", ";ports:[100-101]", ";gpu:1"])
EXECUTORS = st.sampled_from([("process",), ("wasm",), ("wasm", "process")])
CONSTRAINTS = st.sampled_from([(), (), (parse_constraint("zone==north"),), (parse_constraint("floor>=2"),)])
DEVICES = st.sampled_from([(), (), (DeviceRequest("camera"),)])


def build_spec(
    scalars: str,
    extras: str,
    executors: tuple[str, ...],
    constraints: tuple[Constraint, ...],
    devices: tuple[DeviceRequest, ...],
    likes: bool,
) -> TaskSpec:
    spec = task_spec(scalars + extras, executors=executors, devices=devices)
    preferences = (Preference(parse_constraint("floor>=2"), 1.0),) if likes else ()
    return msgspec.structs.replace(spec, constraints=constraints, preferences=preferences)


SPECS = st.builds(build_spec, SCALARS, EXTRAS, EXECUTORS, CONSTRAINTS, DEVICES, st.booleans())
AGENTS = st.builds(
    lambda totals, executors, zone, floor, camera: AgentInfo(
        AgentId("?"),
        totals=Resources.parse(totals),
        executors=tuple(Fingerprint(name) for name in executors),
        attributes={"zone": zone, "floor": floor},
        devices=(Device("cam0", "camera"),) if camera else (),
    ),
    st.sampled_from(
        ["cpus:1;mem:128", "cpus:4;mem:1024", "cpus:4;mem:512;ports:[100-103]", "cpus:16;mem:4096;gpu:2"]
    ),
    st.sampled_from([("process",), ("wasm", "process")]),
    st.sampled_from(["north", "south"]),
    st.integers(1, 3),
    st.booleans(),
)
WEIGHTS = st.sampled_from([500, 1000, 1500, 3000])


@st.composite
def clusters(draw: st.DrawFn, roles: bool = False) -> Cluster:
    """Return a cluster with agents, frameworks and tasks that wait."""
    cluster = Cluster()
    for number, info in enumerate(draw(st.lists(AGENTS, min_size=1, max_size=5))):
        cluster.add_agent(msgspec.structs.replace(info, id=AgentId(f"a{number}")))
    for number in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from(["", "lab", "lab/sensing", "ops"])) if roles else ""
        framework_id = cluster.add_framework(f"f{number}", role=role, weight=draw(WEIGHTS))
        for spec in draw(st.lists(SPECS, max_size=3)):
            cluster.submit(framework_id, spec, draw(st.integers(1, 5)))
    return cluster


def weighted_share(cluster: Cluster, framework_id: FrameworkId) -> Fraction:
    """The definition, in fractions."""
    framework = cluster.frameworks[framework_id]
    parts = [Fraction(framework.allocated.get(k, 0), t) for k, t in cluster.totals.items() if t]
    return max(parts, default=Fraction(0)) / Fraction(framework.weight, 1000)


def has_fitting_task(cluster: Cluster, framework_id: FrameworkId) -> bool:
    return any(
        isinstance(check(task.spec, agent), Resources)
        for task in cluster.frameworks[framework_id].pending
        for agent in cluster.agents.values()
    )


def ways() -> list[Callable[[], DrfScheduler]]:
    return [
        DrfScheduler,
        lambda: DrfScheduler(DrfConfig(strategy="spread")),
        lambda: DrfScheduler(DrfConfig(max_decisions=3)),
    ]


@pytest.mark.parametrize("make", ways())
@settings(max_examples=100, deadline=None)
@given(cluster=clusters())
def test_every_task_served_was_of_the_lowest_share_that_had_one_that_fits(
    make: Callable[[], DrfScheduler], cluster: Cluster
) -> None:
    scheduler = make()
    complete = True
    while decisions := scheduler.schedule(cluster.snapshot(complete=complete)):
        complete = False
        cluster.forget_changes()
        for decision in cluster.replay(decisions):
            assert isinstance(decision, Placement)
            served = cluster.waiting[decision.task_id].framework_id
            fitting = [f for f in cluster.frameworks if has_fitting_task(cluster, f)]
            lowest = min(weighted_share(cluster, f) for f in fitting)
            assert weighted_share(cluster, served) == lowest
    assert not any(has_fitting_task(cluster, f) for f in cluster.frameworks)
    cluster.check_books()


def events() -> st.SearchStrategy[list[tuple[int, int, TaskSpec]]]:
    return st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50), SPECS), max_size=25)


def happen(cluster: Cluster, kind: int, number: int, spec: TaskSpec) -> None:
    """Let one thing happen to the cluster, chosen by numbers."""
    frameworks = sorted(cluster.frameworks)
    if kind == 0:
        cluster.submit(frameworks[number % len(frameworks)], spec, 1 + number % 3)
    elif kind == 1 and cluster.holdings:
        cluster.end(sorted(cluster.holdings)[number % len(cluster.holdings)])
    elif kind == 2 and len(cluster.agents) > 1:
        cluster.remove_agent(sorted(cluster.agents)[number % len(cluster.agents)])
    elif kind == 3:
        totals = Resources.parse(f"cpus:{1 + number % 7};mem:{256 + number}")
        name = AgentId(f"a{number % 7}")
        attributes: Attributes = {"zone": "north", "floor": number % 4}
        executors = (Fingerprint("process"), Fingerprint("wasm"))
        cluster.add_agent(AgentInfo(name, totals=totals, attributes=attributes, executors=executors))
    elif kind == 4 and cluster.waiting:
        cluster.withdraw(sorted(cluster.waiting)[number % len(cluster.waiting)])


@pytest.mark.parametrize("strategy", ["pack", "spread"])
@settings(max_examples=100, deadline=None)
@given(cluster=clusters(roles=True), happenings=events())
def test_changes_lead_to_the_same_decisions_as_a_fresh_look(
    strategy: str, cluster: Cluster, happenings: list[tuple[int, int, TaskSpec]]
) -> None:
    config = DrfConfig(strategy=strategy)  # type: ignore[arg-type]
    kept = DrfScheduler(config)
    cluster.run(kept, complete=True)
    for number, happening in enumerate(happenings):
        happen(cluster, *happening)
        if number % 3:
            continue  # Several things happen between two calls, too.
        fresh = DrfScheduler(config).schedule(cluster.snapshot(complete=True))
        changed = kept.schedule(cluster.snapshot())
        assert list(changed) == list(fresh)
        cluster.forget_changes()
        for decision in changed:
            assert cluster.apply(decision)


@settings(max_examples=50, deadline=None)
@given(cluster=clusters(roles=True))
def test_the_same_snapshot_gives_the_same_decisions(cluster: Cluster) -> None:
    first = DrfScheduler().schedule(cluster.snapshot(complete=True))
    assert list(DrfScheduler().schedule(cluster.snapshot(complete=True))) == list(first)


def end_oldest(cluster: Cluster) -> None:
    if cluster.holdings:
        cluster.end(min(cluster.holdings))


@settings(max_examples=60, deadline=None)
@given(
    big_cpus=st.integers(2, 4),
    agents=st.integers(1, 3),
    own_small=st.integers(0, 12),
    other_small=st.integers(1, 12),
    weights=st.tuples(WEIGHTS, WEIGHTS),
)
def test_a_big_task_runs_some_time_if_tasks_end(
    big_cpus: int, agents: int, own_small: int, other_small: int, weights: tuple[int, int]
) -> None:
    """An endless flood of small tasks, its own framework's too, fills every gap as soon as there is one."""
    cluster = Cluster()
    for number in range(agents):
        info = AgentInfo(
            AgentId(f"a{number}"),
            totals=Resources.parse("cpus:4;mem:1024"),
            executors=(Fingerprint("process"),),
        )
        cluster.add_agent(info)
    mine = cluster.add_framework("mine", weight=weights[0])
    other = cluster.add_framework("other", weight=weights[1])
    small = task_spec("cpus:1;mem:1")
    cluster.submit(other, small, 4 * agents)
    scheduler = DrfScheduler()
    cluster.run(scheduler, complete=True)
    [big] = cluster.submit(mine, task_spec(f"cpus:{big_cpus};mem:1"))
    for _ in range(1000):
        if big in cluster.holdings:
            return
        for framework_id, count in ((mine, own_small), (other, other_small)):
            missing = count - cluster.frameworks[framework_id].pending_count
            if missing > 0:
                cluster.submit(framework_id, small, missing)
        end_oldest(cluster)
        cluster.now += 7.0
        cluster.run(scheduler)
    raise AssertionError("the big task never ran")


@settings(max_examples=50, deadline=None)
@given(smalls=st.integers(1, 8))
def test_a_big_task_that_does_not_fit_blocks_nobody(smalls: int) -> None:
    cluster = Cluster()
    info = AgentInfo(AgentId("a1"), totals=Resources.parse("cpus:8"), executors=(Fingerprint("process"),))
    cluster.add_agent(info)
    mine, other = cluster.add_framework("mine"), cluster.add_framework("other")
    [running] = cluster.submit(other, task_spec("cpus:1"))
    scheduler = DrfScheduler()
    cluster.run(scheduler, complete=True)
    cluster.submit(mine, task_spec("cpus:8"))
    tasks = cluster.submit(mine, task_spec("cpus:1"), smalls) + cluster.submit(
        other, task_spec("cpus:1"), smalls
    )
    placed: list[Decision] = cluster.run(scheduler)
    assert len(placed) == min(7, len(tasks))
    assert running in cluster.holdings
    assert TaskId(2) in cluster.waiting
