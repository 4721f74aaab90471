"""A task's life on the master: submission, ends, retries, kills, blobs, retention."""

from __future__ import annotations

from collections.abc import Callable

from edgerm_core import limits
from edgerm_core.ids import BlobId, TaskId
from edgerm_core.messages import (
    Acknowledge,
    Done,
    Failed,
    Kill,
    KillTasks,
    Launch,
    RefusalCode,
    Submit,
    Submitted,
    TaskAcknowledge,
    TaskUpdate,
)
from edgerm_core.tasks import (
    File,
    Implementation,
    Reason,
    ReschedulePolicy,
    TaskState,
)
from edgerm_core.testing.masters import MasterBench, spec

BLOB = BlobId(b"\x01" * 32)


def test_a_task_goes_from_submission_to_its_end(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(env={"A": "1"}))
    (launch,) = agent.take(Launch)
    assert (launch.task_id, launch.attempt, launch.env) == (task_id, 1, {"A": "1"})
    agent.status(task_id, TaskState.RUNNING, 1, reason="started")
    agent.status(task_id, TaskState.FINISHED, 2, reason="exited", exit_code=0, result=b"42")
    assert [(a.seq) for a in agent.take(Acknowledge)] == [1, 2]
    states = [(u.state, u.result) for u in framework.take(TaskUpdate)]
    assert states == [
        (TaskState.STAGING, None),
        (TaskState.RUNNING, None),
        (TaskState.FINISHED, b"42"),
    ]
    story = [e.state for e in bench.state.tasks[task_id].story]
    assert story == [TaskState.PENDING, TaskState.STAGING, TaskState.RUNNING, TaskState.FINISHED]
    assert bench.state.agents["a1"].free == bench.state.agents["a1"].totals


def test_submitting_the_same_key_twice_makes_one_task(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    framework.send(Submit(1, ("k",), (spec(instances=3),)))
    framework.send(Submit(2, ("k",), (spec(instances=3),)))
    first, second = framework.take(Submitted)
    assert first.task_ids == second.task_ids == ((1, 2, 3),)
    assert len(bench.state.tasks) == 3


def test_a_wrong_spec_refuses_the_whole_submission(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    framework.send(Submit(1, ("a", "b"), (spec(), spec(name="no spaces"))))
    (failed,) = framework.take(Failed)
    assert failed.code == RefusalCode.SPEC
    assert "'no spaces'" in failed.message
    assert not bench.state.tasks


def test_a_flood_is_refused_at_the_limit_and_others_go_on(bench: MasterBench) -> None:
    flooder = bench.framework("f1")
    half = spec(instances=limits.MAX_SUBMIT_TASKS // 2 + 1)
    flooder.send(Submit(1, ("a", "b"), (half, half)))
    (failed,) = flooder.take(Failed)
    assert failed.code == RefusalCode.LIMIT
    other = bench.framework("f2")
    assert bench.submit(other, spec())


def test_an_oversized_spec_is_refused(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    implementation = Implementation("test", options={"data": b"x" * limits.MAX_SPEC_BYTES})
    framework.send(Submit(1, ("a",), (spec(implementations=(implementation,)),)))
    assert "put large data into files" in framework.take(Failed)[0].message


def test_killing_a_waiting_task_ends_it_at_once(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    framework.send(KillTasks(7, (task_id,)))
    assert framework.take(Done)[0].request_id == 7
    assert bench.state.tasks[task_id].state is TaskState.KILLED


def test_killing_a_running_task_asks_its_agent_until_it_has_ended(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    framework.send(KillTasks(7, (task_id,), grace_s=1.5))
    (kill,) = agent.take(Kill)
    assert (kill.attempt, kill.grace_s) == (1, 1.5)
    bench.live(6, agent)
    assert len(agent.take(Kill)) == 1
    agent.status(task_id, TaskState.KILLED, 2, reason=kill.reason, signal=15)
    task = bench.state.tasks[task_id]
    assert (task.state, task.signal) == (TaskState.KILLED, 15)


def test_a_task_that_starts_while_its_kill_is_under_way_is_still_killed(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    framework.send(KillTasks(7, (task_id,)))
    agent.status(task_id, TaskState.RUNNING, 1)
    assert bench.state.tasks[task_id].state is TaskState.KILLING
    agent.status(task_id, TaskState.KILLED, 2)
    assert bench.state.tasks[task_id].state is TaskState.KILLED


def test_killing_a_task_of_somebody_else_is_refused(bench: MasterBench) -> None:
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    other = bench.framework("f2")
    other.send(KillTasks(1, (task_id,)))
    assert other.take(Failed)[0].code == RefusalCode.NOT_FOUND
    assert bench.state.tasks[task_id].state is TaskState.PENDING


def test_killing_a_task_of_an_unreachable_agent_counts_after_its_patience(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(40)
    framework.send(KillTasks(1, (task_id,)))
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    bench.advance(40)
    assert bench.state.tasks[task_id].state is TaskState.KILLED


def test_failures_are_tried_again_as_often_as_the_policy_says(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    policy = ReschedulePolicy(failures=2, delay_s=4)
    (task_id,) = bench.submit(framework, spec(reschedule=policy))
    agent.run_to_end(task_id, 1, ok=False)
    task = bench.state.tasks[task_id]
    assert (task.state, task.reason) == (TaskState.PENDING, Reason.RESCHEDULED)
    bench.live(5, agent)
    agent.run_to_end(task_id, 2, ok=False)
    assert task.not_before == bench.now + 8
    bench.live(9, agent)
    agent.run_to_end(task_id, 3, ok=False)
    assert task.state is TaskState.FAILED


def test_a_failed_task_goes_elsewhere_if_there_is_elsewhere(bench: MasterBench) -> None:
    first = bench.agent("a1")
    bench.agent("a2")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(reschedule=ReschedulePolicy(failures=1, delay_s=0)))
    first.run_to_end(task_id, 1, ok=False)
    assert bench.state.tasks[task_id].agent_id == "a2"


def test_a_task_that_loses_every_agent_is_given_up(bench: MasterBench) -> None:
    """One that takes its agent down with it must not walk through the whole cluster."""
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(reschedule=ReschedulePolicy(losses=2, delay_s=0)))
    for attempt in (1, 2, 3):
        agent.status(task_id, TaskState.RUNNING, 1, attempt)
        agent.status(task_id, TaskState.FAILED, 2, attempt, reason=Reason.AGENT_RESTARTED)
    task = bench.state.tasks[task_id]
    assert (task.state, task.reason) == (TaskState.FAILED, Reason.TOO_MANY_LOSSES)


def test_an_error_is_final(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(reschedule=ReschedulePolicy(failures=5)))
    agent.status(task_id, TaskState.ERROR, 1, reason="spec-invalid", message="no such function")
    assert bench.state.tasks[task_id].state is TaskState.ERROR


def test_a_task_waits_for_its_blobs(bench: MasterBench) -> None:
    bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(files=(File("data.csv", BLOB),)))
    task = bench.state.tasks[task_id]
    assert (task.state, task.reason) == (TaskState.PENDING, Reason.WAITING_BLOB)
    assert BLOB.hex()[:12] in task.message
    bench.store_blob(BLOB)
    assert task.state is TaskState.STAGING


def test_status_updates_count_in_order_once(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 2)
    agent.status(task_id, TaskState.STARTING, 1)
    agent.status(task_id, TaskState.RUNNING, 2)
    assert bench.state.tasks[task_id].state is TaskState.RUNNING
    assert [a.seq for a in agent.take(Acknowledge)] == [2, 1, 2]
    agent.status(task_id, TaskState.FINISHED, 5)
    agent.status(task_id, TaskState.FAILED, 6)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED
    assert [a.seq for a in agent.take(Acknowledge)] == [5, 6]


def test_an_agent_cannot_report_on_a_task_it_was_not_given(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    stranger = bench.agent("a2")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    stranger.status(task_id, TaskState.FINISHED, 1)
    assert bench.state.tasks[task_id].state is TaskState.STAGING
    assert stranger.take(Acknowledge)
    agent.run_to_end(task_id)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED


def test_ended_tasks_are_forgotten_oldest_first_seen_ones_before_unseen(
    make_bench: Callable[..., MasterBench],
) -> None:
    bench = make_bench(retain_terminal_tasks=3)
    framework = bench.framework("f1")
    ids: list[TaskId] = []
    for _ in range(6):
        (task_id,) = bench.submit(framework, spec())
        framework.send(KillTasks(1, (task_id,)))
        ids.append(task_id)
    assert len(bench.state.tasks) == 6, "unseen ends are kept for twice as long"
    framework.send(TaskAcknowledge(tuple(ids)))
    (last,) = bench.submit(framework, spec())
    framework.send(KillTasks(1, (last,)))
    assert sorted(bench.state.tasks) == [*ids[-2:], last]
    assert len(bench.records["task"]) == len(bench.records["spec"]) == 3
