"""Who is served first, where tasks go, and what a waiting task is told."""

import pytest
from edgerm_core.attributes import Preference, parse_constraint
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement
from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.clusters import Cluster, task_spec
from edgerm_core.testing.contracts.scheduler import agent_info

from edgerm_scheduler_strict_priority.config import Config
from edgerm_scheduler_strict_priority.scheduler import StrictPriorityScheduler

ROLES = {"alarm": 10, "alarm/drill": 0, "batch": -10}


def placed(decisions: list[Decision]) -> list[TaskId]:
    return [decision.task_id for decision in decisions if isinstance(decision, Placement)]


def test_the_most_important_role_first_then_the_older_task() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:5"))
    batch, plain, alarm = (
        cluster.add_framework(name, role=role) for name, role in (("b", "batch"), ("p", ""), ("a", "alarm"))
    )
    later = cluster.submit(batch, task_spec("cpus:1"), 2)
    middle = cluster.submit(plain, task_spec("cpus:1"), 2)
    first = cluster.submit(alarm, task_spec("cpus:1"), 2)
    scheduler = StrictPriorityScheduler(Config(roles=ROLES))
    assert placed(cluster.run(scheduler, complete=True)) == [*first, *middle, later[0]]


def test_who_has_waited_long_enough_goes_before_who_is_more_important() -> None:
    cluster = Cluster()
    batch, alarm = cluster.add_framework("b", role="batch"), cluster.add_framework("a", role="alarm")
    scheduler = StrictPriorityScheduler(Config(roles=ROLES, ageing_s=60))
    [old] = cluster.submit(batch, task_spec("cpus:1"))
    assert cluster.run(scheduler, complete=True) == []
    cluster.now += 21 * 60
    [fresh] = cluster.submit(alarm, task_spec("cpus:1"))
    cluster.add_agent(agent_info("a1", "cpus:1"))
    assert placed(cluster.run(scheduler)) == [old]
    cluster.end(old)
    assert placed(cluster.run(scheduler)) == [fresh]


def test_without_ageing_waiting_does_not_help() -> None:
    cluster = Cluster()
    batch, alarm = cluster.add_framework("b", role="batch"), cluster.add_framework("a", role="alarm")
    scheduler = StrictPriorityScheduler(Config(roles=ROLES, ageing_s=0))
    cluster.submit(batch, task_spec("cpus:1"))
    cluster.run(scheduler, complete=True)
    cluster.now += 1e6
    [fresh] = cluster.submit(alarm, task_spec("cpus:1"))
    cluster.add_agent(agent_info("a1", "cpus:1"))
    assert placed(cluster.run(scheduler)) == [fresh]


def test_what_fits_nowhere_holds_up_nobody() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:1"))
    alarm, batch = cluster.add_framework("a", role="alarm"), cluster.add_framework("b", role="batch")
    cluster.submit(alarm, task_spec("cpus:4"))
    [small] = cluster.submit(batch, task_spec("cpus:1"))
    scheduler = StrictPriorityScheduler(Config(roles=ROLES))
    assert placed(cluster.run(scheduler, complete=True)) == [small]


def test_a_task_goes_where_it_likes_best_then_to_the_fullest_machine() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("big", "cpus:8"))
    cluster.add_agent(agent_info("small", "cpus:2"))
    cluster.add_agent(agent_info("north", "cpus:8", attributes={"zone": "north"}))
    framework = cluster.add_framework("f")
    likes_north = TaskSpec(
        "likes",
        task_spec("cpus:1").implementations,
        task_spec("cpus:1").resources,
        preferences=(Preference(parse_constraint("zone==north")),),
    )
    [likes] = cluster.submit(framework, likes_north)
    [plain] = cluster.submit(framework, task_spec("cpus:1"))
    assert cluster.run(StrictPriorityScheduler(Config()), complete=True) == [
        Placement(likes, AgentId("north")),
        Placement(plain, AgentId("small")),
    ]


def test_what_is_left_is_offered_to_the_most_important_taker() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:1"))
    cluster.add_framework("a-batch", role="batch", wants_offers=True)
    alarm = cluster.add_framework("z-alarm", role="alarm", wants_offers=True)
    scheduler = StrictPriorityScheduler(Config(roles=ROLES))
    assert cluster.run(scheduler, complete=True) == [OfferProposal(alarm, AgentId("a1"))]


def test_a_waiting_task_is_told_its_priority_and_who_comes_first() -> None:
    cluster = Cluster()
    batch, alarm = cluster.add_framework("b", role="batch"), cluster.add_framework("a", role="alarm")
    scheduler = StrictPriorityScheduler(Config(roles=ROLES, ageing_s=60))
    [task_id] = cluster.submit(batch, task_spec("cpus:1"))
    cluster.run(scheduler, complete=True)
    cluster.submit(alarm, task_spec("cpus:1"), 2)
    cluster.now += 180
    text = scheduler.explain(cluster.waiting[task_id], cluster.snapshot())
    assert text == "priority -7 (-10 by role 'batch' and 3 for its waiting); 2 waiting tasks come first"


@pytest.mark.parametrize(
    ("role", "priority"),
    [("", 0), ("alarm", 10), ("alarm/door", 10), ("alarm/drill/west", 0), ("alarming", 0), ("batch", -10)],
)
def test_a_role_has_the_priority_of_its_nearest_parent(role: str, priority: int) -> None:
    assert Config(roles=ROLES).priority_of(role) == priority


def test_nothing_is_remembered_of_tasks_that_wait_no_more() -> None:
    cluster = Cluster()
    cluster.add_agent(agent_info("a1", "cpus:100"))
    framework = cluster.add_framework("f")
    scheduler = StrictPriorityScheduler(Config())
    cluster.submit(framework, task_spec("cpus:1"), 50)
    cluster.run(scheduler, complete=True)
    assert len(scheduler._ages) == 0


@pytest.mark.parametrize(
    "wrong", [{"ageing_s": -1}, {"ageing_s": float("nan")}, {"max_decisions": 0}, {"roles": {"a": 10**9}}]
)
def test_values_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)  # type: ignore[arg-type]
