"""Which tasks count as asking for the same thing."""

from __future__ import annotations

import msgspec
import pytest
from edgerm_scheduler_drf.demand import TASKS, Demand, MatchKey, demand_key

from edgerm_core.attributes import Preference, parse_constraint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.resources import DeviceRequest
from edgerm_core.tasks import Implementation, TaskSpec
from edgerm_core.testing.clusters import ClusterTask, task_spec

BASE = task_spec("cpus:1;mem:64;ports:[80];zones:{b,a}", executors=["wasm", "process"])


def make_task(spec: TaskSpec, number: int = 1, avoid: frozenset[AgentId] = frozenset()) -> ClusterTask:
    task = ClusterTask(TaskId(number), FrameworkId(f"f{number}"), spec)
    task.avoid = avoid
    return task


def make_demand(spec: TaskSpec) -> Demand:
    task = make_task(spec)
    return Demand(demand_key(task), task)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"env": {"A": "1"}},
        {"time_limit_s": 5.0},
        {
            "implementations": (
                Implementation("wasm", args=("1",)),
                Implementation("process", args=("ls",)),
                Implementation("wasm", args=("again",)),
            )
        },
    ],
)
def test_what_placement_does_not_look_at_makes_no_difference(changes: dict[str, object]) -> None:
    other = msgspec.structs.replace(BASE, **changes)
    assert demand_key(make_task(other, 2)) == demand_key(make_task(BASE))
    assert hash(demand_key(make_task(other, 2))) == hash(demand_key(make_task(BASE)))


@pytest.mark.parametrize(
    "spec",
    [
        task_spec("cpus:1;mem:65;ports:[80];zones:{b,a}", executors=["wasm", "process"]),
        task_spec("cpus:1;mem:64;ports:[81];zones:{b,a}", executors=["wasm", "process"]),
        task_spec("cpus:1;mem:64;ports:[80];zones:{a}", executors=["wasm", "process"]),
        task_spec("cpus:1;mem:64;ports:[80];zones:{b,a}", executors=["process", "wasm"]),
        msgspec.structs.replace(BASE, constraints=(parse_constraint("os==linux"),)),
        msgspec.structs.replace(BASE, preferences=(Preference(parse_constraint("os==linux"), 1.0),)),
        task_spec(
            "cpus:1;mem:64;ports:[80];zones:{b,a}",
            executors=["wasm", "process"],
            devices=[DeviceRequest("camera")],
        ),
    ],
)
def test_whatever_placement_looks_at_makes_a_difference(spec: TaskSpec) -> None:
    assert demand_key(make_task(spec)) != demand_key(make_task(BASE))


def test_task_that_failed_somewhere_is_a_demand_of_its_own() -> None:
    assert demand_key(make_task(BASE, avoid=frozenset({AgentId("a")}))) != demand_key(make_task(BASE))


def test_order_in_which_resources_are_written_makes_no_difference() -> None:
    turned = task_spec("zones:{a,b};ports:[80];mem:64;cpus:1", executors=["wasm", "process"])
    assert demand_key(make_task(turned)) == demand_key(make_task(BASE))


def test_needs_are_what_fair_sharing_charges_and_room_for_the_task() -> None:
    demand = make_demand(task_spec("mem:64;cpus:0.5;ports:[80-81]", devices=[DeviceRequest("camera", 2)]))
    amounts = (("cpus", 500), ("device/camera", 2000), ("mem", 64_000), ("ports", 2000))
    assert demand.needs == ((TASKS, 1), *amounts)
    assert demand.amounts == dict(amounts)
    assert not demand.plain
    assert make_demand(task_spec("cpus:1;ports:2")).plain


def test_signature_is_the_power_of_two_below_each_need() -> None:
    demand = make_demand(task_spec("cpus:1;mem:0.128"))
    assert demand.signature == ((TASKS, 1), ("cpus", 512), ("mem", 128))
    same = make_demand(task_spec("cpus:1.023;mem:0.255"))
    assert same.signature == demand.signature


def test_launches_of_another_size_are_another_demand_and_may_suit_other_agents() -> None:
    large = msgspec.structs.replace(BASE, env={"A": "x" * 1000})
    assert demand_key(make_task(large)) != demand_key(make_task(BASE))
    assert MatchKey(large) != MatchKey(BASE)


def test_every_demand_has_a_number_of_its_own() -> None:
    assert make_demand(BASE).number < make_demand(BASE).number


def test_match_key_leaves_resources_out() -> None:
    small, large = task_spec("cpus:1"), task_spec("cpus:9")
    assert MatchKey(small) == MatchKey(large)
    assert hash(MatchKey(small)) == hash(MatchKey(large))
    assert MatchKey(small) != MatchKey(task_spec("cpus:1", executors=["wasm"]))
    assert MatchKey(small) != "something else"
