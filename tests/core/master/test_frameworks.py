"""Frameworks on the master: they subscribe, fail over, reconcile, stay away, and are removed."""

from __future__ import annotations

import pytest

from edgerm_core.frameworks import FrameworkInfo, FrameworkState
from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.limits import RETAIN_FRAMEWORK_S
from edgerm_core.messages import (
    Done,
    Kill,
    LogGet,
    LogStream,
    Offers,
    Reconcile,
    Reconciled,
    RefusalCode,
    Submit,
    Subscribe,
    Subscribed,
    TaskAcknowledge,
    TaskReport,
    TaskUpdate,
    Unsubscribe,
)
from edgerm_core.tasks import Reason, TaskState
from edgerm_core.testing.masters import VERSIONS, MasterBench, spec


def test_subscribing_tells_whether_the_framework_is_known(bench: MasterBench) -> None:
    first = bench.framework("f1")
    assert first.take(Subscribed) == [Subscribed(1, False, "bench")]
    first.hang_up()
    assert bench.framework("f1").take(Subscribed) == [Subscribed(1, True, "bench")]


def test_versions_without_overlap_are_refused_with_a_sentence(bench: MasterBench) -> None:
    peer = bench.peers[bench.connect()]
    peer.send(Subscribe((4, 6), FrameworkInfo(FrameworkId("f1"))))
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.VERSION
    assert "speaks 4 to 6" in peer.closed.message
    assert not bench.state.frameworks


@pytest.mark.parametrize(
    ("info", "field"),
    [
        (FrameworkInfo(FrameworkId("no spaces")), "'no spaces'"),
        (FrameworkInfo(FrameworkId("f1"), "line\nbreak"), "framework name"),
        (FrameworkInfo(FrameworkId("f1"), weight=0), "weight"),
        (FrameworkInfo(FrameworkId("f1"), role="a//b"), "role"),
        (FrameworkInfo(FrameworkId("f1"), failover_timeout_s=-1.0), "failover_timeout_s"),
    ],
)
def test_bad_information_is_refused_and_names_the_field(
    bench: MasterBench, info: FrameworkInfo, field: str
) -> None:
    peer = bench.peers[bench.connect()]
    peer.send(Subscribe(VERSIONS, info))
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.MALFORMED
    assert field in peer.closed.message
    assert not bench.state.frameworks


def test_too_many_frameworks_are_refused_and_known_ones_come_back(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.master.frameworks.MAX_FRAMEWORKS", 1)
    first = bench.framework("f1")
    second = bench.framework("f2")
    assert second.closed is not None
    assert second.closed.code == RefusalCode.LIMIT
    first.hang_up()
    assert bench.framework("f1").closed is None


def test_tasks_run_on_while_the_framework_is_away_and_it_hears_of_them_when_back(
    bench: MasterBench,
) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    running, ending = bench.submit(framework, spec(), spec())
    framework.hang_up()
    assert bench.state.frameworks["f1"].state is FrameworkState.DISCONNECTED
    agent.status(running, TaskState.RUNNING, 1)
    agent.run_to_end(ending)
    back = bench.framework("f1")
    back.send(Reconcile(1, (running, ending)))
    assert [(u.task_id, u.state) for u in back.take(TaskUpdate)] == [
        (running, TaskState.RUNNING),
        (ending, TaskState.FINISHED),
    ]


def test_a_newer_session_with_the_same_id_replaces_the_older_one(bench: MasterBench) -> None:
    agent = bench.agent("a1", "cpus:1;mem:10")
    old = bench.framework("f1", offers=True)
    assert old.take(Offers)
    new = bench.framework("f1")
    assert old.closed is not None
    assert old.closed.code == RefusalCode.SESSION_REPLACED
    assert new.closed is None
    assert bench.state.frameworks["f1"].state is FrameworkState.CONNECTED
    assert not bench.state.offers, "offers belong to a connection"
    (task_id,) = bench.submit(new, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    assert [u.state for u in new.take(TaskUpdate)] == [TaskState.STAGING, TaskState.RUNNING]


def test_messages_of_a_replaced_session_change_nothing(bench: MasterBench) -> None:
    old = bench.framework("f1")
    bench.framework("f1")
    old.send(Submit(1, ("k",), (spec(),)))
    old.send(Unsubscribe(2))
    assert not bench.state.tasks
    assert bench.state.frameworks["f1"].state is FrameworkState.CONNECTED


def test_a_newer_session_ends_the_log_streams_of_the_older_one(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    old = bench.framework("f1")
    (task_id,) = bench.submit(old, spec())
    old.send(LogGet(5, task_id, LogStream.STDOUT, follow=True))
    agent.take(LogGet)
    bench.framework("f1")
    (cancel,) = agent.take(LogGet)
    assert cancel.cancel
    assert not bench.state.log_routes


def test_a_framework_that_stays_away_for_too_long_is_removed_with_its_tasks(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1", failover_timeout_s=60.0)
    running, waiting = bench.submit(framework, spec(), spec(resources="cpus:99;mem:1"))
    agent.status(running, TaskState.RUNNING, 1)
    framework.hang_up()
    bench.live(59.0, agent)
    assert bench.state.frameworks["f1"].state is FrameworkState.DISCONNECTED
    bench.live(2.0, agent)
    assert bench.state.tasks[waiting].state is TaskState.KILLED
    (kill,) = agent.take(Kill)
    assert kill.reason == Reason.FRAMEWORK_REMOVED
    agent.status(running, TaskState.KILLED, 2, reason=kill.reason)
    assert not bench.state.frameworks
    assert not bench.state.tasks
    assert not bench.records.get("framework")
    assert not bench.records["task"]


def test_coming_back_in_time_disarms_the_failover_timeout(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1", failover_timeout_s=60.0)
    bench.submit(framework, spec())
    framework.hang_up()
    bench.live(50.0, agent)
    back = bench.framework("f1", failover_timeout_s=60.0)
    bench.live(50.0, agent)
    assert back.closed is None
    back.hang_up()
    bench.live(50.0, agent)
    assert bench.state.frameworks["f1"].state is FrameworkState.DISCONNECTED
    assert len(bench.state.tasks) == 1


def test_a_failover_timeout_of_zero_removes_at_once(bench: MasterBench) -> None:
    framework = bench.framework("f1", failover_timeout_s=0.0)
    bench.submit(framework, spec())
    framework.hang_up()
    assert not bench.state.frameworks


def test_without_a_failover_timeout_live_tasks_keep_a_framework_on_the_books(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    framework.hang_up()
    bench.advance(3 * RETAIN_FRAMEWORK_S)
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    assert "f1" in bench.state.frameworks


def test_an_idle_framework_is_forgotten_after_its_retention(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    framework.hang_up()
    bench.advance(RETAIN_FRAMEWORK_S - 1)
    assert "f1" in bench.state.frameworks
    bench.advance(2)
    assert not bench.state.frameworks
    assert bench.framework("f1").take(Subscribed) == [Subscribed(1, False, "bench")]


def test_the_failover_timeout_counts_on_after_a_restart_of_the_master(bench: MasterBench) -> None:
    framework = bench.framework("f1", failover_timeout_s=60.0)
    bench.submit(framework, spec())
    bench.restart()
    bench.advance(59)
    assert "f1" in bench.state.frameworks
    bench.advance(2)
    assert not bench.state.frameworks


def test_reconciling_without_names_tells_about_all_that_has_not_ended(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    ended, live = bench.submit(framework, spec(), spec())
    agent.run_to_end(ended)
    framework.take(TaskUpdate)
    framework.send(Reconcile(3))
    assert [u.task_id for u in framework.take(TaskUpdate)] == [live]
    assert framework.take(Reconciled) == [Reconciled(3)]


def test_reconciling_lists_unknown_tasks_and_those_of_others_as_unknown(bench: MasterBench) -> None:
    framework, other = bench.framework("f1"), bench.framework("f2")
    (mine,) = bench.submit(framework, spec())
    (theirs,) = bench.submit(other, spec())
    framework.send(Reconcile(3, (TaskId(999), mine, theirs, mine)))
    assert [u.task_id for u in framework.take(TaskUpdate) if u.version][-1:] == [mine]
    assert framework.take(Reconciled) == [Reconciled(3, (TaskId(999), theirs))]


def test_acknowledged_ends_are_marked_and_strangers_cannot_acknowledge(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework, other = bench.framework("f1"), bench.framework("f2")
    ended, live = bench.submit(framework, spec(), spec())
    agent.run_to_end(ended)
    other.send(TaskAcknowledge((ended,)))
    assert not bench.state.tasks[ended].acknowledged
    framework.send(TaskAcknowledge((ended, live, TaskId(999))))
    assert bench.state.tasks[ended].acknowledged
    assert not bench.state.tasks[live].acknowledged
    assert framework.closed is None


def test_unsubscribing_kills_the_tasks_and_removes_the_record_when_they_have_ended(
    bench: MasterBench,
) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    running, waiting = bench.submit(framework, spec(), spec(resources="cpus:99;mem:1"))
    agent.status(running, TaskState.RUNNING, 1)
    framework.send(Unsubscribe(8))
    assert framework.take(Done) == [Done(8)]
    assert bench.state.tasks[waiting].state is TaskState.KILLED
    assert bench.state.tasks[running].state is TaskState.KILLING
    (kill,) = agent.take(Kill)
    agent.status(running, TaskState.KILLED, 2, reason=kill.reason)
    assert framework.closed is not None
    assert framework.closed.code == RefusalCode.REMOVED
    assert not bench.state.frameworks
    assert not bench.state.tasks
    assert bench.state.agents["a1"].free == bench.state.agents["a1"].totals


def test_a_removed_framework_cannot_come_back_while_its_tasks_are_being_killed(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    framework.send(Unsubscribe(8))
    framework.send(Submit(9, ("k",), (spec(),)))
    assert len(bench.state.tasks) == 1
    again = bench.framework("f1")
    assert again.closed is not None
    assert again.closed.code == RefusalCode.REMOVED
    assert "use another id" in again.closed.message


def test_the_removal_of_a_framework_goes_on_after_a_restart_of_the_master(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    framework.send(Unsubscribe(8))
    bench.restart()
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    (kill,) = back.take(Kill)
    back.status(task_id, TaskState.KILLED, 2, reason=kill.reason)
    assert not bench.state.frameworks


def test_a_framework_hears_of_its_own_tasks_only(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    first, second = bench.framework("f1"), bench.framework("f2")
    (task_id,) = bench.submit(first, spec())
    agent.run_to_end(task_id)
    assert first.take(TaskUpdate)
    assert not second.take(TaskUpdate)


def test_a_second_subscribe_on_one_session_ends_it_and_the_tasks_stay(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    bench.submit(framework, spec())
    framework.send(Subscribe(VERSIONS, FrameworkInfo(FrameworkId("f2"))))
    assert framework.closed is not None
    assert framework.closed.code == RefusalCode.UNEXPECTED
    assert list(bench.state.frameworks) == ["f1"]
    assert len(bench.state.tasks) == 1
