"""What a scheduler sees: a window on the books, made anew for each call but copying nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from edgerm_core.frameworks import FrameworkState
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import AgentView, FrameworkView, TaskView
from edgerm_core.limits import MAX_OFFERS_PER_FRAMEWORK
from edgerm_core.master.records import FrameworkRecord
from edgerm_core.master.state import MasterState
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState


class FrameworkWindow:
    """A framework as a scheduler sees it (`interfaces.FrameworkView`)."""

    __slots__ = ("_record",)

    def __init__(self, record: FrameworkRecord) -> None:
        self._record = record

    @property
    def id(self) -> FrameworkId:
        return self._record.id

    @property
    def role(self) -> str:
        return self._record.info.role

    @property
    def weight(self) -> int:
        return self._record.info.weight

    @property
    def allocated(self) -> Mapping[str, int]:
        return self._record.allocated

    @property
    def allocations(self) -> int:
        return self._record.allocations

    @property
    def pending(self) -> list[TaskView]:
        return cast(list[TaskView], self._record.pending.values())

    @property
    def pending_count(self) -> int:
        return len(self._record.pending)

    @property
    def wants_offers(self) -> bool:
        record = self._record
        return (
            record.info.offers
            and record.state is FrameworkState.CONNECTED
            and not record.suppressed
            and len(record.offers) < MAX_OFFERS_PER_FRAMEWORK
        )


class FrameworksWindow(Mapping[FrameworkId, FrameworkView]):
    """All frameworks that can be given something."""

    def __init__(self, records: Mapping[FrameworkId, FrameworkRecord]) -> None:
        self._records = records

    def __getitem__(self, framework_id: FrameworkId) -> FrameworkView:
        return FrameworkWindow(self._records[framework_id])

    def __iter__(self) -> Iterator[FrameworkId]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


class Window:
    """The cluster as a scheduler sees it (`interfaces.Snapshot`)."""

    def __init__(self, state: MasterState, complete: bool) -> None:
        self._state = state
        self.complete = complete
        self.now = state.now
        self.totals: Mapping[str, int] = state.totals
        self.agents = cast(Mapping[AgentId, AgentView], state.schedulable)
        self.frameworks: Mapping[FrameworkId, FrameworkView] = FrameworksWindow(state.frameworks)
        if complete:
            self.agent_changes = frozenset(state.schedulable)
            self.framework_changes = frozenset(state.frameworks)
            self.task_changes = frozenset(
                task_id for f in state.frameworks.values() for task_id in f.pending
            )
        else:
            self.agent_changes = frozenset(state.agent_changes)
            self.framework_changes = frozenset(state.framework_changes)
            self.task_changes = frozenset(state.task_changes)

    def pending_task(self, task_id: TaskId) -> TaskView | None:
        """Return the task if it waits for a placement now."""
        task = self._state.tasks.get(task_id)
        if task is None or task.state is not TaskState.PENDING:
            return None
        return self._state.frameworks[task.framework_id].pending.get(task_id)

    def refused(self, framework_id: FrameworkId, agent_id: AgentId, free: Resources) -> bool:
        """Return whether a decline's filter keeps `free` of that agent from being offered."""
        framework = self._state.frameworks.get(framework_id)
        if framework is None:
            return True
        refused = framework.filters.get(agent_id)
        return refused is not None and refused[0] > self._state.now and refused[1].contains(free)
