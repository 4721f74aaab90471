"""The built-in scheduler keeps the contract, takes turns and serves the oldest first."""

import pytest

from edgerm_core.builtin.first_fit import FirstFitScheduler, schedulers
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import Placement
from edgerm_core.testing.clusters import Cluster, task_spec
from edgerm_core.testing.contracts.scheduler import MakeScheduler, SchedulerContract, agent_info


class TestFirstFit(SchedulerContract):
    @pytest.fixture
    def make_scheduler(self) -> MakeScheduler:
        return FirstFitScheduler


def test_it_is_provided_under_its_name() -> None:
    [provider] = schedulers()
    assert provider.name == "first-fit"
    assert isinstance(provider.create(None), FirstFitScheduler)


def test_frameworks_take_turns_and_the_oldest_task_goes_first() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:3"))
    f1, f2 = cluster.add_framework("f1"), cluster.add_framework("f2")
    first = cluster.submit(f1, task_spec("cpus:1"), 3)
    second = cluster.submit(f2, task_spec("cpus:1"), 3)
    done = cluster.run(FirstFitScheduler(), complete=True)
    assert [d.task_id for d in done if isinstance(d, Placement)] == [first[0], second[0], first[1]]


def test_the_turn_goes_on_in_the_next_call() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:1"))
    f1, f2 = cluster.add_framework("f1"), cluster.add_framework("f2")
    first = cluster.submit(f1, task_spec("cpus:1"), 2)
    second = cluster.submit(f2, task_spec("cpus:1"), 2)
    scheduler = FirstFitScheduler()
    cluster.run(scheduler, complete=True)
    cluster.end(first[0])
    assert cluster.run(scheduler) == [Placement(second[0], AgentId("a1"))]


def test_a_task_that_does_not_fit_does_not_block_the_ones_behind_it() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:1"))
    framework = cluster.add_framework("f1")
    cluster.submit(framework, task_spec("cpus:2"), 5)
    [small] = cluster.submit(framework, task_spec("cpus:1"))
    assert cluster.run(FirstFitScheduler(), complete=True) == [Placement(small, AgentId("a1"))]
