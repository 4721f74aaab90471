"""Status updates on the master: in order, once, and acknowledged when durable."""

from __future__ import annotations

import pytest

from edgerm_core.ids import AgentId, TaskId
from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.master.effects import Commit, Send
from edgerm_core.master.events import BatchEnded, Received, SessionClosed, SessionOpened
from edgerm_core.master.queries import task_row
from edgerm_core.messages import (
    Acknowledge,
    Heartbeat,
    Kill,
    KillTasks,
    RefusalCode,
    Register,
    StatusUpdate,
    TaskAcknowledge,
    TaskReport,
    TaskUpdate,
    TaskUsage,
    Usage,
)
from edgerm_core.tasks import DisconnectPolicy, Reason, TaskState
from edgerm_core.testing.masters import VERSIONS, MasterBench, Peer, ScriptedAgent, spec


@pytest.fixture
def agent(bench: MasterBench) -> ScriptedAgent:
    return bench.agent("a1")


@pytest.fixture
def task_id(bench: MasterBench, agent: ScriptedAgent) -> TaskId:
    """A task that has been placed on the agent and not been confirmed."""
    return bench.submit(bench.framework("f1"), spec())[0]


def test_the_end_carries_what_the_agent_reported(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1, restarts=2)
    agent.status(
        task_id,
        TaskState.FAILED,
        2,
        reason="signaled",
        message="segfault",
        restarts=3,
        signal=11,
        result=b"x",
    )
    task = bench.state.tasks[task_id]
    assert (task.state, task.reason, task.message) == (TaskState.FAILED, "signaled", "segfault")
    assert (task.restarts, task.signal, task.exit_code, task.result) == (3, 11, None, b"x")


def test_usage_is_kept_for_listings_and_nothing_else(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    task = bench.state.tasks[task_id]
    version = task.version
    agent.send(Usage((TaskUsage(task_id, 1, 1000, 2048, 4096),)))
    row = task_row(bench.state, task)["usage"]
    assert (row["cpus"], row["cpu_s"], row["mem_mib"], row["mem_peak_mib"]) == (None, 1.0, 2.0, 4.0)
    bench.advance(10.0)
    agent.send(Usage((TaskUsage(task_id, 1, 3500, 2048),)))
    assert task_row(bench.state, task)["usage"]["cpus"] == 0.25
    assert task.version == version, "the framework is not told"


def test_usage_of_another_attempt_of_another_agent_or_of_no_task_is_left_out(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    agent.send(Usage((TaskUsage(task_id, 7, 1000), TaskUsage(TaskId(999), 1, 1000))))
    bench.agent("a2").send(Usage((TaskUsage(task_id, 1, 1000),)))
    assert task_row(bench.state, bench.state.tasks[task_id])["usage"] is None


def test_updates_of_one_batch_are_acknowledged_once_with_the_last_number(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    bench.handle(
        *(
            Received(agent.session_id, StatusUpdate(task_id, 1, seq, state))
            for seq, state in enumerate((TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED), 1)
        )
    )
    assert agent.take(Acknowledge) == [Acknowledge(task_id, 1, 3)]


def test_an_acknowledgement_leaves_only_with_the_writes_it_speaks_of(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    machine = bench.machine
    update = StatusUpdate(task_id, 1, 1, TaskState.RUNNING)
    assert not machine.handle(Received(agent.session_id, update), bench.now), (
        "nothing before the batch's end"
    )
    effects = machine.handle(BatchEnded(), bench.now)
    assert isinstance(effects[0], Commit)
    assert any(write.kind == "task" for write in effects[0].writes)
    assert Send(agent.session_id, Acknowledge(task_id, 1, 1)) in effects[1:]


def test_a_result_that_is_too_large_is_dropped_with_a_note(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.FINISHED, 1, message="done", result=b"x" * (MAX_RESULT_BYTES + 1))
    task = bench.state.tasks[task_id]
    assert task.result is None
    assert task.message == f"result dropped: larger than {MAX_RESULT_BYTES} bytes. done"


@pytest.mark.parametrize(
    "state", [TaskState.PENDING, TaskState.STAGING, TaskState.UNREACHABLE, TaskState.GONE]
)
def test_states_that_are_the_masters_to_decide_are_acknowledged_and_left_out(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId, state: TaskState
) -> None:
    agent.status(task_id, state, 1)
    assert agent.take(Acknowledge) == [Acknowledge(task_id, 1, 1)]
    assert bench.state.tasks[task_id].state is TaskState.STAGING


def test_a_task_that_starts_again_in_place_goes_from_running_to_starting(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    agent.status(task_id, TaskState.STARTING, 2, reason="restarting", restarts=1)
    assert bench.state.tasks[task_id].state is TaskState.STARTING
    agent.status(task_id, TaskState.RUNNING, 3, restarts=1)
    assert bench.state.tasks[task_id].restarts == 1


def test_a_step_that_cannot_be_is_left_out_and_named_in_the_log(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    """An agent that said RUNNING after KILLING brought the master to a TransitionError, as if the
    mistake were the master's; later updates, the end among them, must still count."""
    agent.status(task_id, TaskState.KILLING, 1)
    agent.status(task_id, TaskState.RUNNING, 2)
    assert bench.state.tasks[task_id].state is TaskState.KILLING
    assert any("from KILLING to RUNNING" in line for line in bench.reports)
    agent.status(task_id, TaskState.FINISHED, 3)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED
    assert [a.seq for a in agent.take(Acknowledge)] == [1, 2, 3]


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.UNREACHABLE])
def test_an_agent_that_registers_tasks_in_states_of_the_master_is_refused(
    bench: MasterBench, agent: ScriptedAgent, state: TaskState
) -> None:
    """A task reported as PENDING went back to PENDING while the agent held it, and stayed for ever."""
    (task_id,) = bench.submit(
        bench.framework("f1"), spec(disconnect=DisconnectPolicy(lost_after_s=1000, replace=False))
    )
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(40)
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, state)])
    assert back.closed is not None
    assert back.closed.code == RefusalCode.MALFORMED
    assert f"t{task_id} as {state.name}" in back.closed.message
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert bench.state.tasks[task_id].state is TaskState.RUNNING


def test_news_of_an_older_attempt_is_acknowledged_and_its_run_stopped(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.FAILED, 1, reason=Reason.AGENT_RESTARTED)
    task = bench.state.tasks[task_id]
    assert task.attempt == 2
    agent.status(task_id, TaskState.RUNNING, 2, attempt=1)
    assert agent.take(Acknowledge)[-1] == Acknowledge(task_id, 1, 2)
    assert [(k.attempt, k.reason) for k in agent.take(Kill)] == [(1, Reason.REPLACED)]
    assert task.state is TaskState.STAGING


def test_news_of_a_task_nobody_knows_is_acknowledged_and_its_run_stopped(
    bench: MasterBench, agent: ScriptedAgent
) -> None:
    agent.status(TaskId(999), TaskState.RUNNING, 1)
    assert agent.take(Acknowledge) == [Acknowledge(TaskId(999), 1, 1)]
    assert [k.task_id for k in agent.take(Kill)] == [999]
    agent.status(TaskId(999), TaskState.KILLED, 2)
    assert agent.take(Acknowledge) == [Acknowledge(TaskId(999), 1, 2)]
    assert not agent.take(Kill)


def test_the_end_of_a_run_that_was_given_up_frees_what_it_held(bench: MasterBench) -> None:
    agent = bench.agent("a1", "cpus:1;mem:10")
    (task_id,) = bench.submit(bench.framework("f1"), spec(disconnect=DisconnectPolicy(lost_after_s=1)))
    agent.status(task_id, TaskState.RUNNING, 1)
    other = bench.agent("a2", "cpus:1;mem:10")
    bench.live(40, other)
    assert bench.state.tasks[task_id].agent_id == "a2"
    back = bench.agent("a1", "cpus:1;mem:10", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert not bench.state.agents["a1"].free
    back.status(task_id, TaskState.KILLED, 2, attempt=1)
    assert bench.state.agents["a1"].free == bench.state.agents["a1"].totals


def test_a_confirmed_kill_is_not_repeated(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.operator().send(KillTasks(1, (task_id,)))
    assert agent.take(Kill)
    agent.status(task_id, TaskState.KILLING, 2)
    bench.live(20, agent)
    assert not agent.take(Kill)


def test_registering_again_on_one_session_with_the_same_tasks_changes_nothing(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    before = bench.state.tasks[task_id].version
    agent.send(Register(VERSIONS, agent.info, "b1", "i1", (TaskReport(task_id, 1, TaskState.RUNNING),)))
    assert bench.state.tasks[task_id].version == before
    assert agent.closed is None


def test_a_restart_that_crosses_a_kill_is_told_with_a_version_of_its_own(bench: MasterBench) -> None:
    """The count of restarts changed behind a version that the framework had seen already."""
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    framework.send(KillTasks(1, (task_id,)))
    before = framework.take(TaskUpdate)[-1]
    agent.status(task_id, TaskState.STARTING, 2, reason="restarting", restarts=1)
    (update,) = framework.take(TaskUpdate)
    assert (update.state, update.restarts) == (TaskState.KILLING, 1)
    assert update.version > before.version


# --- from a gateway's custody -----------------------------------------------------------------------


def custody(bench: MasterBench, agent_id: str) -> Peer:
    """Open a session that carries what a gateway holds of an agent."""
    session_id = bench.connect()
    bench.handle(SessionClosed(session_id, "opened in another way"))
    bench.handle(SessionOpened(session_id, "bench", via=AgentId("gw"), custody_of=AgentId(agent_id)))
    return bench.peers[session_id]


def test_custody_of_an_agent_that_is_away_ends_its_tasks(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.RUNNING, 1)
    agent.hang_up()
    bench.advance(40)
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    gateway = custody(bench, "a1")
    gateway.send(StatusUpdate(task_id, 1, 4, TaskState.RUNNING, restarts=1))
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE, "nobody knows whether it still runs"
    gateway.send(StatusUpdate(task_id, 1, 5, TaskState.FINISHED, result=b"42"))
    assert gateway.take(Acknowledge) == [Acknowledge(task_id, 1, 4), Acknowledge(task_id, 1, 5)]
    task = bench.state.tasks[task_id]
    assert (task.state, task.result) == (TaskState.FINISHED, b"42")
    assert bench.state.agents["a1"].session_id is None


def test_custody_of_an_agent_that_has_just_gone_tells_how_its_tasks_stand(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    """It was acknowledged and left out; a task that went on for long stood in STAGING all the time."""
    agent.hang_up()
    custody(bench, "a1").send(StatusUpdate(task_id, 1, 1, TaskState.RUNNING))
    assert bench.state.tasks[task_id].state is TaskState.RUNNING


def test_custody_that_comes_after_the_news_changes_nothing(
    bench: MasterBench, agent: ScriptedAgent, task_id: TaskId
) -> None:
    agent.status(task_id, TaskState.FINISHED, 2)
    version = bench.state.tasks[task_id].version
    gateway = custody(bench, "a1")
    gateway.send(StatusUpdate(task_id, 1, 1, TaskState.RUNNING))
    gateway.send(StatusUpdate(task_id, 1, 2, TaskState.FINISHED))
    assert len(gateway.take(Acknowledge)) == 2
    assert bench.state.tasks[task_id].version == version


def test_custody_of_what_an_agent_has_forgotten_gives_nobodys_number_away(bench: MasterBench) -> None:
    """A power cut took number 3 from its memory: it gives it again, to its end."""
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    report = TaskReport(task_id, 1, TaskState.STARTING, last_seq=2)
    back = bench.agent("a1", boot_id="b2", tasks=[report])
    gateway = custody(bench, "a1")
    gateway.send(StatusUpdate(task_id, 1, 2, TaskState.STARTING, restarts=1))
    gateway.send(StatusUpdate(task_id, 1, 3, TaskState.RUNNING, restarts=1))
    assert [each.seq for each in gateway.take(Acknowledge)] == [2, 3]
    assert bench.state.tasks[task_id].state is TaskState.STARTING
    back.status(task_id, TaskState.FAILED, 3)
    assert bench.state.tasks[task_id].state is TaskState.FAILED


def test_custody_of_an_agent_that_was_forgotten_is_only_acknowledged(bench: MasterBench) -> None:
    gateway = custody(bench, "nobody")
    gateway.send(StatusUpdate(TaskId(7), 1, 1, TaskState.FINISHED))
    assert gateway.take(Acknowledge) == [Acknowledge(TaskId(7), 1, 1)]
    gateway.send(Heartbeat())
    gateway.hang_up()


def test_custody_is_nobody_else_s_session(bench: MasterBench) -> None:
    gateway = custody(bench, "a1")
    bench.advance(60)
    assert gateway.closed is None, "no greeting is expected"
    hasty = custody(bench, "a1")
    hasty.send(Kill(TaskId(1), 1))
    assert hasty.closed is not None
    assert hasty.closed.code == RefusalCode.UNEXPECTED


@pytest.mark.parametrize("state", [TaskState.FINISHED, TaskState.ERROR])
def test_an_end_in_time_counts_although_the_run_was_given_up(bench: MasterBench, state: TaskState) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec(disconnect=DisconnectPolicy(lost_after_s=1)))
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(60)
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    custody(bench, "a1").send(StatusUpdate(task_id, 1, 2, state))
    task = bench.state.tasks[task_id]
    assert (task.state, task.attempt) == (state, 1)
    assert not bench.state.agents["a1"].ghosts


def test_a_loss_of_a_run_that_was_given_up_is_no_second_loss(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec(disconnect=DisconnectPolicy(lost_after_s=1)))
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(60)
    custody(bench, "a1").send(StatusUpdate(task_id, 1, 2, TaskState.FAILED, Reason.AGENT_RESTARTED))
    task = bench.state.tasks[task_id]
    assert (task.state, task.losses) == (TaskState.PENDING, 1)
    assert not bench.state.agents["a1"].ghosts


def test_observers_are_told_once_of_each_state(bench: MasterBench, agent: ScriptedAgent) -> None:
    """That the framework knows of an end changes the books and was told as a second end."""
    bench.state.observed = True
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.run_to_end(task_id)
    framework.send(TaskAcknowledge((task_id,)))
    assert bench.state.tasks[task_id].acknowledged
    told = [change.row["state"] for change in bench.changes if change.kind == "task"]
    assert told == ["STAGING", "RUNNING", "FINISHED"]
