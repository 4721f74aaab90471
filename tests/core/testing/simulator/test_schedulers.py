"""Schedulers by name, and faulty ones that show their fault."""

from __future__ import annotations

import random

import pytest

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.builtin.first_fit import FirstFitScheduler
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import Placement
from edgerm_core.resources import Resources
from edgerm_core.testing.clusters import Cluster, task_spec
from edgerm_core.testing.simulator.schedulers import FAULTS, FaultyScheduler, scheduler_factory


def test_a_scheduler_is_found_by_its_name() -> None:
    assert isinstance(scheduler_factory("first-fit")(), FirstFitScheduler)


def test_where_it_is_not_installed_the_built_in_one_is_taken() -> None:
    assert isinstance(scheduler_factory("of-the-future")(), FirstFitScheduler)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_and_the_sound_part_goes_on(fault: str) -> None:
    cluster = Cluster()
    cluster.add_agent(
        AgentInfo(AgentId("a1"), "a1", Resources.parse("cpus:1"), {}, (), (Fingerprint("process"),))
    )
    framework = cluster.add_framework("f")
    cluster.submit(framework, task_spec("cpus:1"), 2)
    scheduler = FaultyScheduler(FirstFitScheduler(), fault, random.Random(1))
    raised = strange = sound = 0
    for _ in range(100):
        try:
            decisions = scheduler.schedule(cluster.snapshot(complete=True))
        except (ZeroDivisionError, KeyError):
            raised += 1
            continue
        sound += isinstance(decisions[0], Placement) and len(decisions) == 1
        strange += len(decisions) > 1
    assert sound
    assert (raised > 0) == (fault == "raises")
    assert (strange > 0) == (fault != "raises")
