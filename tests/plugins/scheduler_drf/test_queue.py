"""The waiting tasks of one framework: oldest first, and blocked demands cost nothing."""

from __future__ import annotations

from edgerm_scheduler_drf.demand import Demand, demand_key
from edgerm_scheduler_drf.queue import Queue
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.testing.clusters import ClusterTask, task_spec

FRAMEWORK = FrameworkId("f")


def make_demand(cpus: int) -> Demand:
    task = ClusterTask(TaskId(1), FRAMEWORK, task_spec(f"cpus:{cpus}"))
    return Demand(demand_key(task), task)


class QueueAgainstAList(RuleBasedStateMachine):
    """Whatever happens, the queue says what a look at all waiting tasks would say."""

    def __init__(self) -> None:
        super().__init__()
        self.demands = [make_demand(number) for number in range(1, 3)]
        self.waiting: dict[TaskId, Demand] = {}
        self.queue = Queue(FRAMEWORK, self.waiting)

    @rule(which=st.integers(0, 1), number=st.integers(1, 6))
    def add_task(self, which: int, number: int) -> None:
        # Also one that waited before: a placement that the master refused.
        task_id = TaskId(number)
        if task_id not in self.waiting:
            self.waiting[task_id] = self.demands[which]
            self.queue.add(task_id, self.demands[which])

    @rule(place=st.integers(0, 5))
    def remove_task(self, place: int) -> None:
        if self.waiting:
            del self.waiting[sorted(self.waiting)[place % len(self.waiting)]]

    @rule(which=st.integers(0, 1))
    def block(self, which: int) -> None:
        # A demand is found to fit nowhere when it is its turn.
        head = self.queue.next()
        if head is not None and head[1] is self.demands[which]:
            head[1].blocked = True

    @rule(which=st.integers(0, 1))
    def unblock(self, which: int) -> None:
        demand = self.demands[which]
        if demand.blocked:
            demand.blocked = False
            if FRAMEWORK in demand.parked_by:
                self.queue.wake(demand)
            demand.parked_by.clear()

    @invariant()
    def oldest_task_that_may_fit_is_next(self) -> None:
        may_fit = [(task_id, demand) for task_id, demand in self.waiting.items() if not demand.blocked]
        assert self.queue.next() == (min(may_fit, key=lambda head: head[0]) if may_fit else None)

    @invariant()
    def oldest_task_of_a_blocked_demand_is_the_oldest_parked(self) -> None:
        self.queue.next()  # Parks those whose turn has come.
        parked = [
            (task_id, demand)
            for task_id, demand in self.waiting.items()
            if demand.blocked and FRAMEWORK in demand.parked_by
        ]
        assert self.queue.oldest_parked() == (min(parked, key=lambda head: head[0]) if parked else None)

    @invariant()
    def all_waiting_tasks_are_listed(self) -> None:
        assert sorted(self.queue.tasks()) == sorted(self.waiting)


TestQueueAgainstAList = QueueAgainstAList.TestCase
TestQueueAgainstAList.settings = settings(max_examples=100, deadline=None, stateful_step_count=30)


def test_task_that_comes_back_with_an_older_id_goes_first() -> None:
    demand_of: dict[TaskId, Demand] = {}
    queue = Queue(FRAMEWORK, demand_of)
    demand = make_demand(1)
    for number in (5, 3):
        demand_of[TaskId(number)] = demand
        queue.add(TaskId(number), demand)
    assert queue.next() == (3, demand)


def test_task_that_came_back_before_it_was_skipped_is_listed_once() -> None:
    demand = make_demand(1)
    demand_of = {TaskId(1): demand, TaskId(2): demand}
    queue = Queue(FRAMEWORK, demand_of)
    for task_id in demand_of:
        queue.add(task_id, demand)
    del demand_of[TaskId(1)]
    demand_of[TaskId(1)] = demand
    queue.add(TaskId(1), demand)
    assert sorted(queue.tasks()) == [1, 2]
    del demand_of[TaskId(1)]
    assert queue.next() == (2, demand)


def test_unparked_demand_stays_out_until_it_is_woken() -> None:
    demand = make_demand(1)
    demand_of = {TaskId(1): demand}
    queue = Queue(FRAMEWORK, demand_of)
    queue.add(TaskId(1), demand)
    demand.blocked = True
    assert queue.next() is None
    assert queue.oldest_parked() == (1, demand)
    queue.unpark_oldest()
    assert queue.oldest_parked() is None
    queue.wake(demand)
    assert queue.oldest_parked() == (1, demand)
    demand.blocked = False
    queue.wake(demand)
    assert queue.oldest_parked() is None
    assert queue.next() == (1, demand)
