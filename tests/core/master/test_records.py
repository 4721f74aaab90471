"""The master's records in memory: what is derived from what an agent says about itself."""

from __future__ import annotations

import pytest

from edgerm_core.agents import AgentInfo, AgentState, Fingerprint
from edgerm_core.frameworks import FrameworkInfo, FrameworkState
from edgerm_core.ids import AgentId, FrameworkId, SessionId, TaskId
from edgerm_core.master.records import AgentRecord, FrameworkRecord, Session, TaskRecord, fair_amounts
from edgerm_core.resources import Device, Resources
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import spec

A1 = AgentId("a1")
DEVICES = {
    d.id: d for d in (Device("cam0", "camera", slots=2), Device("cam1", "camera"), Device("r", "relay"))
}


def test_an_agents_totals_include_the_slots_of_its_devices() -> None:
    info = AgentInfo(A1, totals=Resources.parse("cpus:2"), devices=tuple(DEVICES.values()))
    agent = AgentRecord(info)
    assert agent.totals.devices == {"cam0": 2, "cam1": 1, "r": 1}
    assert agent.fair_totals == {"cpus": 2000, "device/camera": 3000, "device/relay": 1000}


def test_only_executors_that_work_count() -> None:
    executors = (Fingerprint("wasm"), Fingerprint("docker", healthy=False, problem="no daemon"))
    assert AgentRecord(AgentInfo(A1, executors=executors)).executors == {"wasm"}


def test_every_description_has_its_own_version() -> None:
    agent = AgentRecord(AgentInfo(A1))
    version = agent.static_version
    agent.describe(AgentInfo(A1, attributes={"zone": "b"}))
    assert agent.static_version == version + 1
    assert agent.attributes == {"zone": "b"}


@pytest.mark.parametrize("state", list(AgentState))
def test_which_agents_count_and_which_get_tasks(state: AgentState) -> None:
    agent = AgentRecord(AgentInfo(A1))
    agent.state = state
    away = state in (AgentState.UNREACHABLE, AgentState.GONE)
    assert agent.counted is not away
    assert not agent.schedulable
    agent.session_id = SessionId(1)
    assert agent.schedulable is (state is AgentState.READY)


def test_fair_amounts_count_slots_by_type_and_leave_unknown_devices_out() -> None:
    held = Resources({"cpus": 500}, devices={"cam0": 1, "cam1": 1, "vanished": 1})
    assert fair_amounts(held, DEVICES) == {"cpus": 500, "device/camera": 2000}


def test_fair_amounts_of_ranges_and_sets_are_counts() -> None:
    held = Resources.parse("mem:10;ports:[1-3,7-7];zones:{a,b}")
    assert fair_amounts(held, {}) == {"mem": 10_000, "ports": 4000, "zones": 2000}


def test_new_records_are_as_the_books_expect_them() -> None:
    task = TaskRecord(TaskId(3), FrameworkId("f1"), "k", 1, spec(), 50.0)
    assert (task.state, task.attempt, task.agent_id, task.changed_at) == (TaskState.PENDING, 0, None, 50.0)
    framework = FrameworkRecord(FrameworkInfo(FrameworkId("f1")), 50.0)
    assert (framework.id, framework.state) == ("f1", FrameworkState.DISCONNECTED)
    session = Session(SessionId(1), "ws://x", "certificate", False)
    assert (session.role, session.agent_id, session.framework_id) == ("", None, None)


def test_records_share_nothing_that_changes() -> None:
    first, second = (FrameworkRecord(FrameworkInfo(FrameworkId(n)), 0.0) for n in ("f1", "f2"))
    first.keys["k"] = (TaskId(1),)
    first.offers.add(1)  # type: ignore[arg-type]
    assert not second.keys
    assert not second.offers
