"""The primitive changes of the books: deadlines, steps, stories, accounts."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.agents import AgentInfo, AgentState
from edgerm_core.errors import TransitionError
from edgerm_core.frameworks import FrameworkInfo, FrameworkState
from edgerm_core.ids import AgentId, FrameworkId, OfferId, SessionId, TaskId
from edgerm_core.limits import MAX_MESSAGE_TEXT, MAX_STORY_ENTRIES
from edgerm_core.master import invariants
from edgerm_core.master.effects import Send
from edgerm_core.master.records import AgentRecord, FrameworkRecord, Holding, OfferRecord, TaskRecord
from edgerm_core.master.settings import Settings
from edgerm_core.master.state import STORY_HEAD, MasterState
from edgerm_core.messages import Failed, Heartbeat
from edgerm_core.resources import Resources
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import MasterBench, spec

F1, A1 = FrameworkId("f1"), AgentId("a1")


@pytest.fixture
def state(bench: MasterBench) -> MasterState:
    return MasterState(Settings(), bench.scheduler, "m", 100.0)


@pytest.fixture
def framework(state: MasterState) -> FrameworkRecord:
    record = FrameworkRecord(FrameworkInfo(F1), state.now)
    state.frameworks[F1] = record
    return record


@pytest.fixture
def agent(state: MasterState) -> AgentRecord:
    record = AgentRecord(AgentInfo(A1, totals=Resources.parse("cpus:4;mem:100")))
    state.add_agent(record)
    state.recount(record)
    return record


@pytest.fixture
def task(state: MasterState, framework: FrameworkRecord) -> TaskRecord:
    record = TaskRecord(TaskId(1), F1, "k", 0, spec(), state.now)
    state.tasks[record.id] = record
    framework.live[record.id] = record
    state.note(record, "submitted", "framework")
    return record


def holding(task_id: int, resources: str) -> Holding:
    granted = Resources.parse(resources)
    return Holding(TaskId(task_id), 1, F1, granted, granted.scalars)


# --- time -----------------------------------------------------------------------------------------


def test_deadlines_come_in_order_of_time_and_then_of_asking(state: MasterState) -> None:
    came: list[Any] = []

    def handle(_: MasterState, key: Any) -> None:
        came.append(key)

    for when, key in ((102.0, "late"), (101.0, {"first": 1}), (101.0, {"second": 2})):
        state.at(when, handle, key)
    assert state.next_deadline() == 101.0
    assert state.pop_due() is None
    state.now = 101.5
    while (due := state.pop_due()) is not None:
        due.handle(state, due.key)
    assert came == [{"first": 1}, {"second": 2}]
    assert state.next_deadline() == 102.0


def test_without_deadlines_there_is_nothing_to_come_back_for(state: MasterState) -> None:
    assert state.next_deadline() is None
    assert state.pop_due() is None


# --- what leaves ----------------------------------------------------------------------------------


def test_sending_to_nobody_sends_nothing(state: MasterState) -> None:
    state.send(None, Heartbeat())
    assert not state.effects


def test_the_text_of_a_failure_is_bounded(state: MasterState) -> None:
    state.fail(SessionId(1), 5, "spec", "x" * (MAX_MESSAGE_TEXT + 100))
    assert state.effects == [Send(SessionId(1), Failed(5, "spec", "x" * MAX_MESSAGE_TEXT))]


# --- tasks ----------------------------------------------------------------------------------------


def test_a_step_the_table_does_not_list_raises_with_the_story(state: MasterState, task: TaskRecord) -> None:
    state.move_task(task, TaskState.STAGING, "placed", "master", "on a1")
    state.move_task(task, TaskState.FINISHED, "exited", "agent")
    with pytest.raises(TransitionError) as caught:
        state.move_task(task, TaskState.RUNNING, "started", "agent")
    assert "task t1 cannot go from FINISHED to RUNNING" in str(caught.value)
    assert "STAGING placed on a1" in str(caught.value)
    assert task.state is TaskState.FINISHED


def test_every_change_counts_the_version_and_marks_record_and_news(
    state: MasterState, task: TaskRecord
) -> None:
    state.dirty.clear()
    state.news.clear()
    version = task.version
    state.now = 123.0
    state.note(task, "waiting", "master", "m" * (MAX_MESSAGE_TEXT + 1))
    assert task.version == version + 1
    assert (task.reason, task.changed_at, len(task.message)) == ("waiting", 123.0, MAX_MESSAGE_TEXT)
    assert ("task", task.id) in state.dirty
    assert task.id in state.news


def test_a_long_story_keeps_its_beginning_and_its_end(state: MasterState, task: TaskRecord) -> None:
    for number in range(1, 3 * MAX_STORY_ENTRIES):
        state.note(task, str(number), "master")
    reasons = [entry.reason for entry in task.story]
    assert len(reasons) == MAX_STORY_ENTRIES
    assert reasons[:STORY_HEAD] == ["submitted", *map(str, range(1, STORY_HEAD))]
    last = 3 * MAX_STORY_ENTRIES - 1
    assert reasons[STORY_HEAD:] == [str(n) for n in range(last - len(reasons) + STORY_HEAD + 1, last + 1)]


def test_queueing_and_unqueueing_tell_the_scheduler(state: MasterState, task: TaskRecord) -> None:
    state.queue_task(task)
    assert state.task_changes == {1}
    state.task_changes.clear()
    state.unqueue_task(task)
    state.unqueue_task(task)
    assert state.task_changes == {1}
    assert not state.frameworks[F1].pending


# --- the accounts ---------------------------------------------------------------------------------


def test_holding_and_releasing_return_to_the_start(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    before = agent.free
    state.hold(agent, holding(1, "cpus:1.5;mem:10"))
    assert agent.free == Resources.parse("cpus:2.5;mem:90")
    assert (framework.allocated, framework.allocations) == ({"cpus": 1500, "mem": 10_000}, 1)
    state.release(agent, TaskId(1))
    state.release(agent, TaskId(1))
    assert agent.free == before
    assert (framework.allocated, framework.allocations) == ({}, 0)


def test_a_ghost_keeps_the_agents_resources_but_not_the_frameworks_charge(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    state.hold(agent, holding(1, "cpus:1;mem:10"))
    state.to_ghost(agent, TaskId(1))
    assert agent.free == Resources.parse("cpus:3;mem:90")
    assert framework.allocations == 0
    state.from_ghost(agent, TaskId(1), 1)
    assert framework.allocated == {"cpus": 1000, "mem": 10_000}
    state.to_ghost(agent, TaskId(1))
    state.drop_ghost(agent, TaskId(1), 1)
    state.drop_ghost(agent, TaskId(1), 1)
    assert agent.free == agent.totals


def test_an_offer_is_booked_and_given_back(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    resources = Resources.parse("cpus:4;mem:100")
    offer = OfferRecord(OfferId(1), F1, A1, resources, dict(resources.scalars), 160.0)
    state.hold_offer(offer)
    assert not agent.free
    assert framework.offers == set(agent.offers) == {1}
    assert framework.allocated == {"cpus": 4000, "mem": 100_000}
    state.release_offer(offer)
    assert agent.free == agent.totals
    assert not framework.offers
    assert framework.allocated == {}


def test_totals_below_what_is_booked_leave_nothing_free_until_it_fits_again(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    state.hold(agent, holding(1, "cpus:2;mem:10"))
    state.hold(agent, holding(2, "cpus:1;mem:10"))
    smaller = AgentInfo(A1, totals=Resources.parse("cpus:2;mem:100"))
    state.describe_agent(agent, lambda: agent.describe(smaller))
    assert (agent.overbooked, agent.free.scalars.get("cpus", 0)) == (True, 0)
    assert state.totals == {"cpus": 2000, "mem": 100_000}
    state.release(agent, TaskId(1))
    assert (agent.overbooked, agent.free) == (False, Resources.parse("cpus:1;mem:90"))


def test_what_is_held_on_an_agent_that_is_away_does_not_count_for_sharing(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    state.hold(agent, holding(1, "cpus:1;mem:10"))
    state.move_agent(agent, AgentState.UNREACHABLE)
    assert framework.allocations == 0
    assert state.totals == {}
    state.move_agent(agent, AgentState.READY)
    assert framework.allocated == {"cpus": 1000, "mem": 10_000}
    assert state.totals == {"cpus": 4000, "mem": 100_000}


def test_the_charge_of_a_framework_that_is_gone_is_nobodys(state: MasterState, agent: AgentRecord) -> None:
    state.hold(agent, holding(1, "cpus:1;mem:10"))
    state.release(agent, TaskId(1))
    assert agent.free == agent.totals


# --- agents and frameworks ------------------------------------------------------------------------


def test_steps_of_agents_and_frameworks_are_checked(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    state.move_agent(agent, AgentState.GONE)
    with pytest.raises(TransitionError, match="agent a1 cannot go from GONE to READY"):
        state.move_agent(agent, AgentState.READY)
    state.move_framework(framework, FrameworkState.REMOVED)
    with pytest.raises(TransitionError, match="framework f1 cannot go from REMOVED to CONNECTED"):
        state.move_framework(framework, FrameworkState.CONNECTED)


def test_only_a_ready_agent_with_a_session_is_schedulable(state: MasterState, agent: AgentRecord) -> None:
    state.move_agent(agent, AgentState.READY)
    assert not state.schedulable
    agent.session_id = SessionId(1)
    state.refresh_schedulable(agent)
    assert list(state.schedulable) == ["a1"]
    state.move_agent(agent, AgentState.DRAINING)
    assert not state.schedulable
    agent.session_id = None
    state.remove_agent(agent)
    assert not state.agents
    assert state.totals == {}
    invariants.check(state)


def test_an_agent_that_still_holds_something_cannot_be_removed(
    state: MasterState, framework: FrameworkRecord, agent: AgentRecord
) -> None:
    state.hold(agent, holding(1, "cpus:1;mem:1"))
    with pytest.raises(AssertionError, match="tasks must be dealt with first"):
        state.remove_agent(agent)
