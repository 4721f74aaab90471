"""How long tasks have been waiting. A snapshot does not say: the scheduler notes when it first saw one."""

from __future__ import annotations

from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Snapshot


class Ages:
    """Kept up to date from what a snapshot says has changed."""

    def __init__(self) -> None:
        self._since: dict[TaskId, float] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Note the tasks that began to wait, and forget those that ceased to."""
        if snapshot.complete:
            self._since.clear()
        for task_id in snapshot.task_changes:
            if snapshot.pending_task(task_id) is None:
                self._since.pop(task_id, None)
            else:
                self._since.setdefault(task_id, snapshot.now)

    def waited_s(self, task_id: TaskId, now: float) -> float:
        """Return for how long a task has been waiting."""
        return now - self._since.get(task_id, now)

    def __len__(self) -> int:
        return len(self._since)
