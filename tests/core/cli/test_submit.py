from __future__ import annotations

from typing import cast

from edgerm_core.cli.submit import task_row
from edgerm_core.client.framework import Framework
from edgerm_core.client.tasks import Task
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskState


def test_row_of_a_task_that_was_just_submitted_and_of_one_that_ended() -> None:
    framework = Framework(FrameworkInfo(FrameworkId("f")))
    task = Task(framework, TaskId(7))
    task.name = "hello"
    row = task_row(task)
    assert (row["id"], row["number"], row["name"], row["state"]) == ("t7", 7, "hello", "PENDING")
    task.on_update(TaskUpdate(task.id, 4, TaskState.FAILED, "exit-code", "exited", "a", 1, 0, 3))
    ended = task_row(task)
    assert list(ended) == list(row)
    assert cast(int, ended["exit_code"]) == 3
