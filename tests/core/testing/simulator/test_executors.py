"""Hosts: what runs, what survives whom, and devices with their fences."""

from __future__ import annotations

import pytest

from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.messages import Launch
from edgerm_core.tasks import ExitResult, Implementation
from edgerm_core.testing.simulator.executors import Behaviour, Host, RealRun
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import Failure, World


@pytest.fixture
def host() -> Host:
    return Host(World(1, Story()), "a1", lambda host, run: None)


def start(host: Host, task_id: int = 1, executor: str = "process", **behaviour: object) -> RealRun:
    options = Behaviour(**behaviour).options()  # type: ignore[arg-type]
    launch = Launch(TaskId(task_id), 1, FrameworkId("f"), "job", Implementation(executor, options=options))
    run = host.begin((task_id, 1, 0), launch)
    host.go(run)
    return run


def test_behaviours_travel_in_the_options() -> None:
    for behaviour in (Behaviour(), Behaviour(run_s=None, deaf=True), Behaviour(start="hangs", end="trap")):
        assert Behaviour.of(behaviour.options()) == behaviour


def test_a_run_ends_as_it_was_told_to(host: Host) -> None:
    ends: list[ExitResult] = []
    run = start(host, run_s=5.0, end="badly")
    run.on_end = ends.append
    host.world.run_until(4.9)
    assert host.live() == [run]
    host.world.run_until(5.1)
    assert [end.exit_code for end in ends] == [3]
    assert host.live() == []


def test_a_service_runs_until_it_is_stopped(host: Host) -> None:
    run = start(host, run_s=None, stop_s=3.0)
    host.world.run_until(1000.0)
    assert run.live
    host.stop(run, grace_s=1.0)
    host.world.run_until(1001.0)
    assert not run.live


def test_a_deaf_run_ends_only_when_it_is_destroyed(host: Host) -> None:
    run = start(host, run_s=None, deaf=True)
    host.stop(run, grace_s=0.0)
    host.world.run_until(100.0)
    assert run.live
    host.destroy(run)
    assert not run.live


def test_what_lives_inside_the_agent_dies_with_it_and_the_rest_does_not(host: Host) -> None:
    kept = start(host, 1, "process", run_s=None)
    start(host, 2, "wasm", run_s=None)
    host.agent_died()
    assert host.live() == [kept]


def test_nothing_survives_the_machine(host: Host) -> None:
    start(host, run_s=None)
    host.power_off()
    assert host.live() == []


def test_a_sweep_ends_what_nobody_noted(host: Host) -> None:
    noted, orphan = start(host, 1, run_s=None), start(host, 2, run_s=None)
    host.sweep([host.go(noted)])
    assert host.live() == [noted]
    assert not orphan.live


def test_a_handle_of_another_start_finds_nothing(host: Host) -> None:
    run = start(host, run_s=None)
    handle = host.go(run)
    assert host.find(handle) is run
    host.destroy(run)
    start(host, run_s=None)
    assert host.find(handle) is None


def test_a_device_has_as_many_holders_as_slots(host: Host) -> None:
    assert host.reserve("cam0", 1, (1, 1, 0))
    with pytest.raises(Failure, match="cam0 has 1 slots"):
        host.reserve("cam0", 1, (2, 1, 0))
    host.release("cam0", (1, 1, 0))
    assert host.reserve("cam0", 1, (2, 1, 0))


def test_a_smaller_fence_after_a_larger_one_is_found(host: Host) -> None:
    assert host.reserve("cam0", 1, (1, 2, 0))
    host.release("cam0", (1, 2, 0))
    with pytest.raises(Failure, match="fence"):
        host.reserve("cam0", 1, (1, 1, 5))


def test_an_unplugged_device_cannot_be_had(host: Host) -> None:
    host.unplugged.add("cam0")
    assert not host.reserve("cam0", 1, (1, 1, 0))
