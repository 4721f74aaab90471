"""The tasks of one framework that wait, oldest first, by what they ask for."""

from __future__ import annotations

import heapq

from edgerm_core.ids import FrameworkId, TaskId
from edgerm_scheduler_drf.demand import Demand

Head = tuple[TaskId, int, Demand]


class Queue:
    """Waiting tasks of one framework. Task ids grow with age, so the smallest id is the oldest.

    A demand whose turn comes while it is blocked is parked, so that it costs nothing until `wake`.
    Removed tasks are skipped when they come up: `demand_of` says which still wait.

    Parameters:
        framework_id: whose tasks they are.
        demand_of: what each waiting task asks for; kept by the caller, shared by all queues.
    """

    def __init__(self, framework_id: FrameworkId, demand_of: dict[TaskId, Demand]) -> None:
        self._framework_id = framework_id
        self._demand_of = demand_of
        self._tasks: dict[Demand, list[TaskId]] = {}
        self._ready: list[Head] = []
        self._parked: list[Head] = []
        self._parked_at: dict[Demand, TaskId] = {}

    def add(self, task_id: TaskId, demand: Demand) -> None:
        """Let a task wait."""
        tasks = self._tasks.setdefault(demand, [])
        heapq.heappush(tasks, task_id)
        if tasks[0] == task_id:
            self._show(task_id, demand)

    def next(self) -> tuple[TaskId, Demand] | None:
        """Return the oldest task that may fit somewhere; None if there is none."""
        while self._ready:
            shown, number, demand = self._ready[0]
            head = self._head(demand)
            if head is None:
                heapq.heappop(self._ready)
            elif demand.blocked:
                heapq.heappop(self._ready)
                self._show(head, demand)
            elif head != shown:
                heapq.heapreplace(self._ready, (head, number, demand))
            else:
                return head, demand
        return None

    def oldest_parked(self) -> tuple[TaskId, Demand] | None:
        """Return the oldest task whose demand is parked."""
        while self._parked:
            shown, number, demand = self._parked[0]
            head = self._head(demand)
            if head is None or not demand.blocked:
                heapq.heappop(self._parked)
                self._parked_at.pop(demand, None)
            elif head != shown:
                heapq.heapreplace(self._parked, (head, number, demand))
                self._parked_at[demand] = head
            else:
                return head, demand
        return None

    def unpark_oldest(self) -> None:
        """Leave out what `oldest_parked` returned, until it is woken."""
        _, _, demand = heapq.heappop(self._parked)
        self._parked_at.pop(demand, None)

    def wake(self, demand: Demand) -> None:
        """Show a demand again that was parked: as ready, or as parked if it is still blocked."""
        head = self._head(demand)
        if head is not None:
            self._show(head, demand)

    def tasks(self) -> list[TaskId]:
        """Return all waiting tasks."""
        return [task_id for demand in list(self._tasks) for task_id in self._waiting(demand)]

    def _waiting(self, demand: Demand) -> set[TaskId]:
        # A set: one that was removed and came back before it was skipped is there twice.
        return {task_id for task_id in self._tasks[demand] if self._demand_of.get(task_id) is demand}

    def _show(self, head: TaskId, demand: Demand) -> None:
        if demand.blocked:
            demand.parked_by.add(self._framework_id)
            # One entry for each demand, however often it is woken and blocked again in between.
            if head < self._parked_at.get(demand, head + 1):
                self._parked_at[demand] = head
                heapq.heappush(self._parked, (head, demand.number, demand))
        else:
            heapq.heappush(self._ready, (head, demand.number, demand))

    def _head(self, demand: Demand) -> TaskId | None:
        tasks = self._tasks.get(demand)
        if tasks is None:
            return None
        while tasks:
            if self._demand_of.get(tasks[0]) is demand:
                return tasks[0]
            heapq.heappop(tasks)
        del self._tasks[demand]
        return None
