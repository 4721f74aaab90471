"""What a stand-in says in its device's place: what the device said last, and what is in custody."""

from __future__ import annotations

from edgerm_core.gateway.custody import Held
from edgerm_core.gateway.standin import StandIn
from edgerm_core.ids import TaskId
from edgerm_core.messages import Acknowledge, Inventory, StatusUpdate, TaskReport
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState
from edgerm_core.testing.gateways import a_register

T1 = TaskId(1)
KEY = (T1, 1)
RUNNING, FINISHED = TaskState.RUNNING, TaskState.FINISHED


def a_standin() -> StandIn:
    return StandIn(1, a_register("d1"), 10.0, 35.0)


def held(seq: int, state: TaskState) -> list[Held]:
    return [Held(StatusUpdate(T1, 1, seq, state))]


def test_registers_as_the_device_would() -> None:
    standin = a_standin()
    standin.max_message_bytes = 1024
    standin.says(StatusUpdate(T1, 1, 2, RUNNING, restarts=1))
    standin.says(StatusUpdate(T1, 1, 1, TaskState.STARTING))
    standin.changes(Inventory(totals=Resources.parse("cpus:2")))
    register = standin.registration()
    assert register.tasks == (TaskReport(T1, 1, RUNNING, 1, 2),)
    assert (register.info.totals, register.max_message_bytes) == (Resources.parse("cpus:2"), 1024)


def test_an_acknowledged_end_is_not_reported_any_more() -> None:
    standin = a_standin()
    update = StatusUpdate(T1, 1, 2, FINISHED)
    standin.says(update)
    standin.passing[KEY] = [update]
    assert not standin.acknowledged(Acknowledge(T1, 1, 1))
    assert standin.tasks
    assert standin.acknowledged(Acknowledge(T1, 1, 2))
    assert (standin.tasks, standin.passing, standin.passing_count()) == ({}, {}, 0)


def test_an_end_in_custody_counts_more_than_what_the_device_remembers() -> None:
    for reports in ((), (TaskReport(T1, 1, RUNNING, 0, 1),)):
        standin = a_standin()
        standin.registers(a_register("d1", tasks=reports), {KEY: held(2, FINISHED)})
        assert standin.tasks == {KEY: TaskReport(T1, 1, FINISHED, 0, 2)}


def test_a_run_in_custody_counts_only_if_the_device_still_has_it() -> None:
    standin = a_standin()
    standin.registers(a_register("d1"), {KEY: held(2, RUNNING)})
    assert standin.tasks == {}
    standin.registers(
        a_register("d1", tasks=[TaskReport(T1, 1, TaskState.STARTING, 0, 1)]), {KEY: held(2, RUNNING)}
    )
    assert standin.tasks == {KEY: TaskReport(T1, 1, TaskState.STARTING, 0, 2)}
    standin.registers(a_register("d1", tasks=[TaskReport(T1, 1, RUNNING)]), {KEY: held(2, RUNNING)})
    assert standin.tasks == {KEY: TaskReport(T1, 1, RUNNING)}, "an agent that does not count"
