"""A master that is killed and started again on its records: nothing lost, nothing started twice."""

from __future__ import annotations

import pytest

from edgerm_core.agents import AgentState
from edgerm_core.errors import StoreError
from edgerm_core.ids import BlobId
from edgerm_core.master import journal
from edgerm_core.messages import Kill, KillTasks, Launch, Reconcile, Subscribed, TaskReport, TaskUpdate
from edgerm_core.tasks import DisconnectPolicy, File, ReschedulePolicy, TaskState
from edgerm_core.testing.masters import MasterBench, spec


def test_running_tasks_go_on_and_are_not_launched_again(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    running, waiting = bench.submit(framework, spec(), spec(resources="cpus:100;mem:1"))
    agent.status(running, TaskState.RUNNING, 1)
    bench.restart(away_s=20)
    assert bench.state.agents["a1"].state is AgentState.RECOVERING
    assert bench.state.tasks[running].state is TaskState.RUNNING
    assert bench.state.tasks[waiting].state is TaskState.PENDING

    back = bench.agent("a1", tasks=[TaskReport(running, 1, TaskState.RUNNING)])
    assert not back.take(Launch)
    assert not back.take(Kill)
    back.status(running, TaskState.FINISHED, 2)
    assert bench.state.tasks[running].state is TaskState.FINISHED

    framework = bench.framework("f1")
    assert framework.take(Subscribed)[0].known
    framework.send(Reconcile(1, (running, waiting)))
    assert [u.state for u in framework.take(TaskUpdate)] == [TaskState.FINISHED, TaskState.PENDING]


def test_an_agent_that_lost_its_latest_numbers_in_a_power_cut_is_still_heard(bench: MasterBench) -> None:
    """It uses a number again that the master has seen; the news behind it must not be swallowed."""
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.STARTING, 1)
    agent.status(task_id, TaskState.RUNNING, 2)
    back = bench.agent("a1", boot_id="b2", tasks=[TaskReport(task_id, 1, TaskState.STARTING, last_seq=1)])
    back.status(task_id, TaskState.FAILED, 2, reason="exit-code")
    assert bench.state.tasks[task_id].state is TaskState.FAILED


def test_numbers_lost_in_a_power_cut_stay_lost_when_the_master_restarts_too(bench: MasterBench) -> None:
    """The lowered number was kept in memory alone, and the agent's next news counted as known."""
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.STARTING, 1)
    agent.status(task_id, TaskState.RUNNING, 2)
    bench.agent("a1", boot_id="b2", tasks=[TaskReport(task_id, 1, TaskState.STARTING, last_seq=1)])
    bench.restart()
    # Meanwhile it has ended there, under the number that the first run of it had used.
    back = bench.agent("a1", boot_id="b2", tasks=[TaskReport(task_id, 1, TaskState.FAILED, last_seq=2)])
    back.status(task_id, TaskState.FAILED, 2, reason="exit-code")
    assert bench.state.tasks[task_id].state is TaskState.FAILED


def test_no_record_lies_in_the_future_of_the_next_master(bench: MasterBench) -> None:
    """The time was written with new tasks alone: after the clock was set back, a delay lasted for hours."""
    agent = bench.agent("a1")
    policy = ReschedulePolicy(failures=1, delay_s=5.0)
    (task_id,) = bench.submit(bench.framework("f1"), spec(reschedule=policy))
    bench.advance(3.0)
    agent.status(task_id, TaskState.FAILED, 1, reason="exit-code")
    meta = journal.read_meta(bench.records)
    assert meta is not None
    assert bench.state.tasks[task_id].not_before == bench.now + 5.0
    assert meta.now == bench.now


def test_an_unconfirmed_launch_is_repeated_with_the_same_attempt(bench: MasterBench) -> None:
    bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    bench.restart()
    back = bench.agent("a1")
    (launch,) = back.take(Launch)
    assert (launch.task_id, launch.attempt) == (task_id, 1)


def test_an_unconfirmed_kill_is_repeated(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    framework.send(KillTasks(1, (task_id,)))
    bench.restart()
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert back.take(Kill)


def test_numbers_are_never_given_twice(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    (first,) = bench.submit(framework, spec())
    bench.restart()
    (second,) = bench.submit(bench.framework("f1"), spec())
    assert second == first + 1


def test_a_resubmission_after_the_restart_finds_its_tasks(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    first = bench.submit(framework, spec(instances=2), key="nightly")
    bench.restart()
    assert bench.submit(bench.framework("f1"), spec(instances=2), key="nightly") == first
    assert len(bench.state.tasks) == 2


def test_everybody_gets_time_to_come_back(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.restart(away_s=3600)
    bench.advance(80)
    assert bench.state.tasks[task_id].state is TaskState.RUNNING
    bench.advance(20)
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE


def test_a_delay_and_a_missing_blob_survive(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    blob = BlobId(b"\x02" * 32)
    delayed, blocked = bench.submit(
        framework,
        spec(reschedule=ReschedulePolicy(failures=1, delay_s=30)),
        spec(files=(File("x", blob),)),
    )
    agent.run_to_end(delayed, ok=False)
    bench.restart()
    agent = bench.agent("a1")
    assert bench.state.tasks[delayed].state is TaskState.PENDING
    bench.store_blob(blob)
    assert bench.state.tasks[blocked].state is TaskState.STAGING
    bench.live(31, agent)
    assert bench.state.tasks[delayed].state is TaskState.STAGING


def test_a_run_that_was_given_up_is_still_stopped_after_the_restart(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec(disconnect=DisconnectPolicy(lost_after_s=1)))
    agent.status(task_id, TaskState.RUNNING, 1)
    other = bench.agent("a2")
    bench.live(40, other)
    assert bench.state.tasks[task_id].attempt == 2
    bench.restart()
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert [(k.task_id, k.attempt) for k in back.take(Kill)] == [(task_id, 1)]
    assert bench.state.agents["a1"].free.scalars["cpus"] == 3000


def test_replay_of_the_records_gives_the_same_records(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    first, _ = bench.submit(framework, spec(), spec())
    agent.run_to_end(first)
    before = {kind: dict(table) for kind, table in bench.records.items() if kind != "meta"}
    bench.restart()
    for task in bench.state.tasks.values():
        bench.state.dirty["task", task.id] = None
        bench.state.dirty["spec", task.id] = None
    for agent_id in bench.state.agents:
        bench.state.dirty["agent", agent_id] = None
    written = {(w.kind, w.key): w.value for w in journal.take_writes(bench.state)}
    for kind in ("task", "spec"):
        for key, value in before[kind].items():
            assert written[kind, key] == value


def test_a_store_of_a_later_version_is_refused_rather_than_misread() -> None:
    import msgspec

    raw = msgspec.msgpack.encode(journal.MetaRow(journal.LAYOUT + 1, "m", 1, 1, 0.0))
    with pytest.raises(StoreError, match="later edgerm"):
        journal.read_meta({"meta": {b"": raw}})


def test_a_damaged_record_is_named() -> None:
    with pytest.raises(StoreError, match="meta record is damaged"):
        journal.read_meta({"meta": {b"": b"\xc1"}})
