"""The checks find what they are there to find."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.master.events import BatchEnded
from edgerm_core.messages import Launch, TaskUpdate
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, Reason, TaskState
from edgerm_core.testing.simulator.cluster import Cluster
from edgerm_core.testing.simulator.world import Failure

from .conftest import Begin, job


@pytest.fixture
def cluster(begin: Begin) -> Cluster:
    return begin(job(run_s=None))


def launch(cluster: Cluster, resources: str = "cpus:1") -> Launch:
    implementation = job().implementations[0]
    granted = Resources.parse(resources)
    return Launch(TaskId(1), 1, FrameworkId("f1"), "w0", implementation, granted)


def test_two_runs_of_a_task_on_one_agent(cluster: Cluster) -> None:
    with pytest.raises(Failure, match=r"t1.2\+0 .* begins while t1.1\+0 lives there"):
        cluster.agents["a1"].host.begin((1, 2, 0), launch(cluster))


def test_a_fence_that_comes_twice(cluster: Cluster) -> None:
    host = cluster.agents["a1"].host
    host.destroy(host.live()[0])
    with pytest.raises(Failure, match=r"\(1, 0\) has begun there before"):
        host.begin((1, 1, 0), launch(cluster))


def test_more_than_there_is(cluster: Cluster) -> None:
    with pytest.raises(Failure, match="runs there hold"):
        cluster.agents["a1"].host.begin((2, 1, 0), launch(cluster, "cpus:3.5"))


def test_more_tasks_than_an_agent_takes(cluster: Cluster) -> None:
    node = cluster.agents["a1"]
    node.plan = msgspec.structs.replace(node.plan, max_tasks=1)
    with pytest.raises(Failure, match="2 tasks run there at once, it takes 1"):
        node.host.begin((2, 1, 0), launch(cluster))


def test_more_tasks_given_than_an_agent_takes(begin: Begin) -> None:
    cluster = begin(job("w0", run_s=None), job("w1", run_s=None))
    machine = cluster.master.machine
    assert machine is not None
    agent = machine.state.agents[AgentId("a1")]
    agent.info = msgspec.structs.replace(agent.info, max_tasks=1)
    with pytest.raises(Failure, match="a1 was given 2 tasks at once, it takes 1"):
        cluster.checks.master_handled(cluster.master, BatchEnded())


def test_one_port_for_two(cluster: Cluster) -> None:
    host = cluster.agents["a1"].host
    host.begin((2, 1, 0), launch(cluster, "ports:[31000-31001]"))
    with pytest.raises(Failure, match="the same ports"):
        host.begin((3, 1, 0), launch(cluster, "ports:[31001-31002]"))


def test_an_attempt_after_its_kill_was_promised(cluster: Cluster) -> None:
    cluster.checks.kill_promised(1)
    host = cluster.agents["a1"].host
    host.destroy(host.live()[0])
    with pytest.raises(Failure, match="its kill was promised in attempt 1"):
        host.begin((1, 2, 0), launch(cluster))


@pytest.mark.parametrize(
    ("update", "problem"),
    [
        (TaskUpdate(TaskId(1), 9, TaskState.FINISHED, Reason.EXITED, "", "a1", 1, exit_code=0), "ended so"),
        (
            TaskUpdate(TaskId(1), 9, TaskState.FAILED, Reason.EXIT_CODE, "", "a1", 1, exit_code=4),
            "ended so",
        ),
        (
            TaskUpdate(TaskId(1), 9, TaskState.KILLED, Reason.KILLED_BY_REQUEST, "", "a1", 1),
            "nobody wanted",
        ),
        (TaskUpdate(TaskId(1), 9, TaskState.GONE, Reason.STARTED, "", "a1", 1), "no loss"),
    ],
)
def test_an_end_that_is_not_what_happened(cluster: Cluster, update: TaskUpdate, problem: str) -> None:
    [run] = cluster.agents["a1"].host.live()
    run.result = ExitResult(False, Reason.EXIT_CODE, exit_code=3)
    with pytest.raises(Failure, match=problem):
        cluster.checks.end_told("f1", update)


def test_a_record_that_is_not_what_the_books_say(cluster: Cluster) -> None:
    cluster.checks.disk_agrees(cluster.master)
    assert cluster.master.machine is not None
    cluster.master.machine.state.tasks[TaskId(1)].restarts = 5
    with pytest.raises(Failure, match="record of task 1 is not what the books say: element 9 is 5"):
        cluster.checks.disk_agrees(cluster.master)


def test_a_journal_that_is_not_what_the_agent_knows(cluster: Cluster) -> None:
    agent = cluster.agents["a1"].agent
    assert agent is not None
    agent.runs.known[TaskId(1), 1].restarts = 5
    with pytest.raises(Failure, match=r"a1: t1\.1"):
        cluster.checks.journal_agrees(cluster.agents["a1"])


def test_silence_that_nobody_notices(cluster: Cluster) -> None:
    assert cluster.master.machine is not None
    cluster.master.machine.state.agents[AgentId("a1")].last_heard -= 1000.0
    with pytest.raises(Failure, match="silent for"):
        cluster.checks._check_leases(cluster.master)


def test_a_task_of_two_keys(cluster: Cluster) -> None:
    with pytest.raises(Failure, match="t1 is f1/w0's"):
        cluster.checks.submitted("f2", "other", (1,))
