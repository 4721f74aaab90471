"""Log streams through the master: each answer reaches the one who asked, and nobody else."""

from __future__ import annotations

import pytest

from edgerm_core.ids import TaskId
from edgerm_core.limits import MAX_LOG_STREAMS
from edgerm_core.messages import Forget, LogData, LogGet, LogStream
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import MasterBench, Peer, ScriptedAgent, spec

OUT = LogStream.STDOUT


@pytest.fixture
def agent(bench: MasterBench) -> ScriptedAgent:
    return bench.agent("a1")


@pytest.fixture
def framework(bench: MasterBench) -> Peer:
    return bench.framework("f1")


@pytest.fixture
def task_id(bench: MasterBench, agent: ScriptedAgent, framework: Peer) -> TaskId:
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    return task_id


def problem(peer: Peer) -> str:
    """Return what the one refusal that the peer got says."""
    (data,) = peer.take(LogData)
    assert data.end
    return data.problem


def test_two_askers_with_the_same_request_id_each_get_their_own(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    operator = bench.operator()
    framework.send(LogGet(7, task_id, OUT, offset=5))
    operator.send(LogGet(7, task_id, LogStream.STDERR, follow=True))
    first, second = agent.take(LogGet)
    assert first.request_id != second.request_id
    assert (first.stream, first.offset, first.follow) == (OUT, 5, False)
    assert (second.stream, second.offset, second.follow) == (LogStream.STDERR, 0, True)
    agent.send(LogData(second.request_id, 0, b"to the operator"))
    agent.send(LogData(first.request_id, 5, b"to the framework", end=True))
    assert framework.take(LogData) == [LogData(7, 5, b"to the framework", end=True)]
    assert operator.take(LogData) == [LogData(7, 0, b"to the operator")]


def test_the_latest_attempt_is_asked_for_unless_another_is_named(
    agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT))
    framework.send(LogGet(2, task_id, OUT, attempt=3))
    assert [get.attempt for get in agent.take(LogGet)] == [1, 3]


def test_a_stream_is_over_with_its_end(agent: ScriptedAgent, framework: Peer, task_id: TaskId) -> None:
    framework.send(LogGet(1, task_id, OUT))
    (get,) = agent.take(LogGet)
    agent.send(LogData(get.request_id, 0, b"all", end=True))
    agent.send(LogData(get.request_id, 3, b"too late"))
    assert [data.data for data in framework.take(LogData)] == [b"all"]


def test_cancelling_tells_the_agent_and_ends_only_that_stream(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT, follow=True))
    framework.send(LogGet(2, task_id, OUT, follow=True))
    first, second = agent.take(LogGet)
    framework.send(LogGet(1, TaskId(0), OUT, cancel=True))
    (cancel,) = agent.take(LogGet)
    assert (cancel.request_id, cancel.cancel) == (first.request_id, True)
    agent.send(LogData(first.request_id, 0, b"late"))
    agent.send(LogData(second.request_id, 0, b"still read"))
    assert [(d.request_id, d.data) for d in framework.take(LogData)] == [(2, b"still read")]


def test_cancelling_what_is_not_there_changes_nothing(agent: ScriptedAgent, framework: Peer) -> None:
    framework.send(LogGet(99, TaskId(0), OUT, cancel=True))
    assert not agent.take(LogGet)
    assert not framework.take(LogData)
    assert framework.closed is None


def test_nobody_can_cancel_the_stream_of_another(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT, follow=True))
    agent.take(LogGet)
    bench.operator().send(LogGet(1, TaskId(0), OUT, cancel=True))
    assert not agent.take(LogGet)
    assert len(bench.state.log_routes) == 1


def test_an_agent_that_is_lost_ends_its_streams_with_a_sentence(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT, follow=True))
    agent.hang_up()
    assert "lost its connection" in problem(framework)
    assert not bench.state.log_routes
    framework.send(LogGet(2, task_id, OUT))
    assert "agent a1, which has the log of t1, is not connected" in problem(framework)


def test_an_agent_that_takes_over_its_session_ends_the_streams_of_the_older_one(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT, follow=True))
    bench.agent("a1", incarnation="i2")
    assert "lost its connection" in problem(framework)
    assert not bench.state.log_routes


def test_an_asker_that_is_gone_is_forgotten_and_the_agent_told(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    operator = bench.operator()
    operator.send(LogGet(1, task_id, OUT, follow=True))
    framework.send(LogGet(1, task_id, OUT, follow=True))
    first, _ = agent.take(LogGet)
    operator.hang_up()
    assert [(get.request_id, get.cancel) for get in agent.take(LogGet)] == [(first.request_id, True)]
    assert len(bench.state.log_routes) == 1


def test_one_asker_may_read_only_so_many_logs_at_once(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    for number in range(MAX_LOG_STREAMS):
        framework.send(LogGet(number, task_id, OUT, follow=True))
    framework.send(LogGet(1000, task_id, OUT))
    assert problem(framework) == f"{MAX_LOG_STREAMS} logs are being read already; close one first"
    operator = bench.operator()
    agent.take(LogGet)
    operator.send(LogGet(1, task_id, OUT))
    assert len(agent.take(LogGet)) == 1, "another asker is not held up"
    framework.send(LogGet(0, TaskId(0), OUT, cancel=True))
    framework.send(LogGet(1001, task_id, OUT))
    assert not framework.take(LogData)


def test_another_frameworks_task_looks_as_if_it_were_not_there(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    other = bench.framework("f2")
    other.send(LogGet(1, task_id, OUT))
    other.send(LogGet(2, TaskId(999), OUT))
    mine, unknown = other.take(LogData)
    assert mine.problem == "there is no task t1 (any more)"
    assert unknown.problem == "there is no task t999 (any more)"
    assert not agent.take(LogGet)


def test_a_task_without_a_place_has_no_log_yet(bench: MasterBench, framework: Peer) -> None:
    (task_id,) = bench.submit(framework, spec(resources="cpus:99;mem:1"))
    framework.send(LogGet(1, task_id, OUT))
    assert problem(framework) == "task t1 has not been placed yet"


def test_the_log_of_a_forgotten_agent_is_gone(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.FINISHED, 2)
    bench.operator().send(Forget(1, agent.info.id))
    framework.send(LogGet(1, task_id, OUT))
    assert "is not connected" in problem(framework)


def test_an_agent_cannot_answer_in_place_of_another(
    bench: MasterBench, agent: ScriptedAgent, framework: Peer, task_id: TaskId
) -> None:
    framework.send(LogGet(1, task_id, OUT))
    (get,) = agent.take(LogGet)
    bench.agent("a2").send(LogData(get.request_id, 0, b"forged", end=True))
    assert not framework.take(LogData)
    agent.send(LogData(get.request_id, 0, b"true", end=True))
    assert [data.data for data in framework.take(LogData)] == [b"true"]
