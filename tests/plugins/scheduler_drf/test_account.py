"""What is left on an agent while one call gives things away."""

from __future__ import annotations

import pytest
from edgerm_scheduler_drf.account import Account, quantities
from edgerm_scheduler_drf.demand import Demand, demand_key
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import AgentView
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.testing.clusters import ClusterAgent, ClusterTask, task_spec

HERE = AgentId("a")
CAMERAS = (
    Device("cam0", "camera"),
    Device("cam1", "camera", slots=2),
    Device("cam2", "camera", healthy=False),
)


def make_demand(resources: str, *devices: DeviceRequest) -> Demand:
    task = ClusterTask(TaskId(1), FrameworkId("f"), task_spec(resources, devices=devices))
    return Demand(demand_key(task), task)


def make_agents(totals: str, devices: tuple[Device, ...] = ()) -> dict[AgentId, AgentView]:
    return {HERE: ClusterAgent(AgentInfo(HERE, totals=Resources.parse(totals), devices=devices))}


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=12))
def test_what_is_left_does_not_depend_on_when_it_is_asked_for(steps: list[tuple[int, bool]]) -> None:
    account = Account(make_agents("cpus:5;mem:64;ports:[100-119]"))
    given_away = 0
    for number, (milli, ask) in enumerate(steps, 1):
        account.give(HERE, make_demand(f"cpus:{milli / 1000};ports:1"))
        given_away += milli
        if ask:
            assert account.free(HERE).scalars["cpus"] == 5000 - given_away
            assert account.free(HERE).quantities()["ports"] == (20 - number) * 1000
    left = Resources({"cpus": 5000 - given_away, "mem": 64_000}, {"ports": ((100 + len(steps), 119),)})
    assert account.free(HERE) == left


def test_devices_are_given_once() -> None:
    account = Account(make_agents("cpus:4", CAMERAS))
    camera = make_demand("cpus:1", DeviceRequest("camera"))
    for left in ({"cam1": 2}, {"cam1": 1}, {}):
        account.give(HERE, camera)
        assert account.free(HERE).devices == left


def test_nothing_is_left_of_what_was_offered() -> None:
    account = Account(make_agents("cpus:4;mem:64"))
    account.give(HERE, make_demand("cpus:1"))
    account.give_all(HERE)
    assert not account.free(HERE)


def test_giving_what_is_not_there_is_a_bug_of_the_scheduler() -> None:
    account = Account(make_agents("cpus:1"))
    account.give(HERE, make_demand("cpus:1"))
    account.give(HERE, make_demand("cpus:1"))
    with pytest.raises(AssertionError, match="a was given more than it has"):
        account.free(HERE)


def test_quantities_count_elements_and_slots_of_known_devices() -> None:
    free = Resources(
        {"cpus": 500},
        {"ports": ((1, 3), (7, 7))},
        {"zones": frozenset({"x", "y"})},
        {"cam0": 1, "cam1": 2, "gone": 1},
    )
    assert quantities(free, {device.id: device for device in CAMERAS}) == {
        "cpus": 500,
        "ports": 4000,
        "zones": 2000,
        "device/camera": 3000,
    }


def test_quantities_are_a_copy() -> None:
    free = Resources.parse("cpus:1")
    quantities(free, {})["cpus"] = 7
    assert free.scalars == {"cpus": 1000}
