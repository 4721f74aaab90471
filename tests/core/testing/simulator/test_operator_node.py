"""The operator repeats what was not answered, and is heard."""

from __future__ import annotations

import pytest

from edgerm_core.agents import AgentState
from edgerm_core.ids import AgentId
from edgerm_core.tasks import TaskState

from .conftest import Begin, job


def test_draining_and_letting_work_again(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    assert cluster.master.machine is not None
    agents = cluster.master.machine.state.agents
    cluster.operator.drain("a1")
    cluster.world.run_until(20.0)
    assert agents[AgentId("a1")].state is AgentState.DRAINING
    cluster.operator.drain("a1", undo=True)
    cluster.world.run_until(30.0)
    assert agents[AgentId("a1")].state is AgentState.READY


def test_what_the_master_did_not_answer_is_asked_again(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    cluster.master.crash()
    cluster.operator.kill(1)
    assert cluster.operator.waiting
    cluster.master.start()
    cluster.world.run_until(120.0)
    assert not cluster.operator.waiting
    assert cluster.frameworks["f1"].told[1].state is TaskState.KILLED


@pytest.mark.parametrize("kind", ["cluster", "agents", "frameworks", "tasks", "explain", "story"])
def test_every_question_is_answered(begin: Begin, kind: str) -> None:
    cluster = begin(job())
    cluster.operator.query(kind, 1)
    cluster.world.run_until(20.0)
    assert not cluster.operator.waiting


def test_a_forgotten_agent_comes_back_as_a_new_one(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    cluster.operator.forget("a1")
    cluster.world.run_until(100.0)
    assert [str(run) for run in cluster.agents["a1"].host.live()] == ["t1.2+0"]
