"""Orders, status updates, restarts, kills: one test for each rule."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgerm_core.agent import effects, events, runs
from edgerm_core.agent.runs import LAST_WORD_RESULT_BYTES
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.ids import TaskId, blob_id
from edgerm_core.limits import STATUS_RESEND_BASE_S
from edgerm_core.messages import HeartbeatAck, Register, Registered, StatusUpdate
from edgerm_core.resources import Resources
from edgerm_core.tasks import ExitResult, File, Reason, RestartPolicy, TaskState, Volume
from edgerm_core.testing.agents import BADLY, WELL, AgentBench, run_id

ALWAYS = RestartPolicy(on="always", attempts=2, interval_s=100, delay_s=1, max_delay_s=8)
ON_FAILURE = RestartPolicy(on="failure", attempts=2, interval_s=100, delay_s=1, max_delay_s=8)


def keep_alive(bench: AgentBench, seconds: float) -> None:
    """Let time pass with a master that answers."""
    end = bench.now + seconds
    while bench.now < end:
        bench.pass_time(min(10.0, end - bench.now))
        if bench.agent.session.registered:
            bench.receive(HeartbeatAck())


# --- launch -------------------------------------------------------------------------------------


def test_a_short_task_costs_two_updates_and_is_then_forgotten(bench: AgentBench) -> None:
    bench.launch()
    assert [order.run for order in bench.take(effects.StartRun)] == [run_id()]
    bench.start()
    bench.end(result=ExitResult(True, Reason.EXITED, exit_code=0, result=b"42"))
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "FINISHED")]
    assert bench.updates()[-1].result == b"42"
    assert bench.take(effects.ReleaseAttempt) == [effects.ReleaseAttempt(TaskId(1), 1)]
    bench.acknowledge()
    assert not bench.agent.runs.known


def test_a_repeated_launch_changes_nothing(bench: AgentBench) -> None:
    bench.launch()
    bench.launch()
    bench.start()
    bench.launch()
    bench.end()
    bench.launch()
    assert len(bench.take(effects.StartRun)) == 1
    assert len(bench.updates()) == 3, "the repeated launch was answered while the task was starting"


def test_a_repeated_launch_of_a_run_that_takes_long_to_start_is_answered(bench: AgentBench) -> None:
    bench.launch()
    assert bench.updates() == []
    bench.launch()
    bench.launch()
    assert [(u.state, u.reason) for u in bench.updates()] == [(TaskState.STARTING, Reason.STARTING)]


@pytest.mark.parametrize(
    ("result", "remembered"),
    [(b"x" * LAST_WORD_RESULT_BYTES, b"x" * LAST_WORD_RESULT_BYTES), (b"x" * 1000, None)],
)
def test_a_launch_that_crossed_its_own_end_is_answered_with_the_end(
    bench: AgentBench, result: bytes, remembered: bytes | None
) -> None:
    bench.running()
    bench.end(result=ExitResult(True, Reason.EXITED, result=result))
    bench.acknowledge()
    bench.take(effects.StartRun)
    bench.sent.clear()
    bench.launch()
    assert bench.states() == [(1, 2, "FINISHED")]
    assert bench.updates()[0].result == remembered
    assert not bench.take(effects.StartRun)


def test_an_older_attempt_is_ignored(bench: AgentBench) -> None:
    bench.launch(attempt=2)
    bench.launch(attempt=1)
    assert [order.run.attempt for order in bench.take(effects.StartRun)] == [2]


def test_a_newer_attempt_starts_when_the_older_one_has_ended(bench: AgentBench) -> None:
    bench.running(attempt=1)
    bench.take(effects.StartRun)
    bench.launch(attempt=2)
    assert [order.run.attempt for order in bench.take(effects.StopRun)] == [1]
    assert not bench.take(effects.StartRun)
    bench.end(attempt=1)
    assert [order.run.attempt for order in bench.take(effects.StartRun)] == [2]
    bench.start(attempt=2)
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "KILLED"), (2, 1, "RUNNING")]
    assert bench.updates()[1].reason == Reason.REPLACED


def test_an_attempt_that_waits_is_itself_replaced(bench: AgentBench) -> None:
    bench.running(attempt=1)
    bench.launch(attempt=2)
    bench.launch(attempt=3)
    bench.end(attempt=1)
    assert [order.run.attempt for order in bench.take(effects.StartRun)] == [1, 3]
    assert (2, 1, "KILLED") in bench.states()


def test_a_newer_attempt_follows_a_run_between_two_starts_at_once(bench: AgentBench) -> None:
    bench.running(attempt=1, restart=ALWAYS)
    bench.end(attempt=1)
    bench.launch(attempt=2)
    assert [order.run.attempt for order in bench.take(effects.StartRun)] == [1, 2]


@pytest.mark.parametrize(
    ("fields", "state", "reason", "text"),
    [
        ({"executor": "absent"}, TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE, "no executor 'absent'"),
        ({"executor": "sick"}, TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE, "it is not well"),
        (
            {"resources": Resources.parse("ports:[80]")},
            TaskState.DROPPED,
            Reason.RESOURCES_UNAVAILABLE,
            "no longer has",
        ),
        (
            {"resources": Resources(devices={"cam0": 1})},
            TaskState.DROPPED,
            Reason.RESOURCES_UNAVAILABLE,
            "device/cam0",
        ),
        (
            {"restart": RestartPolicy(delay_s=math.nan)},
            TaskState.ERROR,
            Reason.SPEC_INVALID,
            "restart.delay_s",
        ),
        (
            {"files": (File("../../etc/passwd", blob_id(b"x")),)},
            TaskState.ERROR,
            Reason.SPEC_INVALID,
            "'..'",
        ),
        ({"volumes": (Volume("data", "../up"),)}, TaskState.ERROR, Reason.SPEC_INVALID, "volume"),
    ],
)
def test_an_order_that_cannot_be_carried_out_ends_with_its_reason(
    bench: AgentBench, fields: dict[str, Any], state: TaskState, reason: str, text: str
) -> None:
    bench.launch(**fields)
    (update,) = bench.updates()
    assert (update.seq, update.state, update.reason) == (1, state, reason)
    assert text in update.message
    assert not bench.take(effects.StartRun)


def test_no_more_tasks_than_the_limit_are_taken() -> None:
    bench = AgentBench(max_tasks=2).come_up()
    for task_id in (1, 2, 3):
        bench.launch(task_id)
    assert bench.updates(3)[0].reason == Reason.RESOURCES_UNAVAILABLE
    bench.end(1)
    bench.launch(4)
    assert not bench.updates(4)


def test_launches_are_put_off_while_too_many_ends_are_unacknowledged(
    bench: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AGENT_MAX_UNACKNOWLEDGED", 2)
    for task_id in (1, 2, 3):
        bench.launch(task_id, executor="absent")
    assert not bench.updates(3)
    bench.acknowledge(1)
    bench.launch(3, executor="absent")
    assert bench.updates(3)


def test_the_memory_of_acknowledged_ends_is_bounded(
    bench: AgentBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LAST_WORDS_KEPT", 2)
    for task_id in range(1, 6):
        bench.running(task_id)
        bench.end(task_id)
        bench.acknowledge(task_id)
    assert len(bench.agent.runs.last_words) == len(bench.agent.runs.newest) == 2


# --- how runs start and end ---------------------------------------------------------------------


def test_fetching_is_reported(bench: AgentBench) -> None:
    bench.launch()
    bench.tell(events.RunFetching(run_id()))
    assert [(u.state, u.reason) for u in bench.updates()] == [(TaskState.STARTING, Reason.FETCHING)]


def test_a_run_that_could_not_be_started_ends_as_told(bench: AgentBench) -> None:
    bench.launch()
    bench.tell(events.RunNotStarted(run_id(), TaskState.ERROR, Reason.SPEC_INVALID, "no such option"))
    (update,) = bench.updates()
    assert (update.state, update.reason, update.message) == (
        TaskState.ERROR,
        Reason.SPEC_INVALID,
        "no such option",
    )


def test_a_recoverable_failure_to_start_is_tried_again(bench: AgentBench) -> None:
    bench.launch(restart=ON_FAILURE)
    event = events.RunNotStarted(run_id(), TaskState.FAILED, "launch-failed", "busy", recoverable=True)
    bench.tell(event)
    bench.pass_time(1)
    assert [order.run.restarts for order in bench.take(effects.StartRun)] == [0, 1]


def test_a_failed_run_says_how(bench: AgentBench) -> None:
    bench.running()
    bench.end(result=ExitResult(False, Reason.SIGNALED, "x" * 10_000, signal=11))
    last = bench.updates()[-1]
    assert (last.state, last.reason, last.signal, len(last.message)) == (
        TaskState.FAILED,
        Reason.SIGNALED,
        11,
        2000,
    )


def test_a_failing_run_is_restarted_in_place_until_its_policy_is_used_up(bench: AgentBench) -> None:
    bench.running(restart=ON_FAILURE)
    starts = []
    for restarts in range(3):
        if restarts:
            bench.pass_time(2.0 ** (restarts - 1))
            bench.start(restarts=restarts)
        starts += [(order.run.restarts, bench.now) for order in bench.take(effects.StartRun)]
        bench.end(restarts=restarts, result=BADLY)
        bench.acknowledge()
    assert starts == [(0, 1000.0), (1, 1001.0), (2, 1003.0)]
    names = [update.state.name for update in bench.updates()]
    assert names == ["RUNNING", "STARTING", "RUNNING", "STARTING", "RUNNING", "FAILED"]
    assert [update.restarts for update in bench.updates()] == [0, 1, 1, 2, 2, 2]


def test_on_failure_a_good_end_is_the_end(bench: AgentBench) -> None:
    bench.running(restart=ON_FAILURE)
    bench.end()
    assert bench.states()[-1] == (1, 2, "FINISHED")


def test_a_service_is_started_again_for_ever(bench: AgentBench) -> None:
    bench.running(restart=RestartPolicy(on="always", attempts=0, delay_s=0.001, max_delay_s=0.001))
    for restarts in range(20):
        bench.end(restarts=restarts, result=BADLY if restarts % 2 else WELL)
        bench.pass_time(1.0)
        bench.start(restarts=restarts + 1)
    assert not any(update.state.terminal for update in bench.updates())


def test_restarts_need_no_master(bench: AgentBench) -> None:
    bench.running(restart=ALWAYS)
    bench.lose(jitter=0.0)
    bench.end()
    bench.pass_time(1.0)
    assert [order.run.restarts for order in bench.take(effects.StartRun)] == [0, 1]


@pytest.mark.parametrize(
    "result",
    [
        ExitResult(False, "r" * 1000, "lone \udcff surrogate", exit_code=1 << 70),
        ExitResult(False, Reason.SIGNALED, signal=-9),
        ExitResult(True, Reason.EXITED, result=b"x" * (64 * 1024 + 1)),
    ],
)
def test_what_an_executor_says_is_brought_into_a_form_the_wire_allows(
    bench: AgentBench, result: ExitResult
) -> None:
    bench.running()
    bench.end(result=result)
    (update,) = decode_batch(encode_batch(bench.updates()[-1:]))
    assert isinstance(update, StatusUpdate)
    assert (update.exit_code, update.signal, update.result) == (None, None, None)


def test_a_run_over_its_time_limit_is_ended_and_has_failed(bench: AgentBench) -> None:
    bench.running(time_limit_s=7.0, kill_grace_s=3.0, restart=ALWAYS)
    bench.pass_time(7.0)
    assert bench.take(effects.StopRun) == [effects.StopRun(run_id(), 3.0)]
    bench.end(result=BADLY)
    last = bench.updates()[-1]
    assert (last.state, last.reason, last.exit_code) == (TaskState.FAILED, Reason.TIME_LIMIT, 3)
    assert "7 s" in last.message


def test_the_time_limit_counts_from_each_start(bench: AgentBench) -> None:
    bench.running(time_limit_s=7.0, restart=ALWAYS)
    bench.pass_time(6.0)
    bench.end()
    bench.pass_time(1.0)
    bench.start(restarts=1)
    bench.pass_time(6.0)
    assert not bench.take(effects.StopRun)


# --- kill ---------------------------------------------------------------------------------------


def test_a_kill_ends_the_run_with_its_grace_and_reason(bench: AgentBench) -> None:
    bench.running()
    bench.kill(grace_s=9.0, reason="framework-removed")
    assert bench.take(effects.StopRun) == [effects.StopRun(run_id(), 9.0)]
    bench.acknowledge()
    bench.end(result=BADLY)
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "KILLING"), (1, 3, "KILLED")]
    assert bench.updates()[-1].reason == "framework-removed"


def test_a_repeated_kill_changes_nothing_but_a_shorter_grace_counts(bench: AgentBench) -> None:
    bench.running()
    bench.kill(grace_s=60.0)
    bench.kill(grace_s=60.0)
    assert len(bench.take(effects.StopRun)) == 1
    bench.kill(grace_s=1.0)
    assert bench.take(effects.StopRun) == [effects.StopRun(run_id(), 1.0)]


def test_a_kill_of_an_unknown_task_is_answered_and_its_launch_never_starts(bench: AgentBench) -> None:
    bench.kill(attempt=3)
    assert bench.states() == [(3, 1, "KILLED")]
    bench.launch(attempt=3)
    bench.launch(attempt=2)
    assert not bench.take(effects.StartRun)
    assert bench.states() == [(3, 1, "KILLED"), (3, 1, "KILLED")]


def test_a_kill_while_starting_cancels_the_start(bench: AgentBench) -> None:
    bench.launch()
    bench.kill()
    assert bench.take(effects.StopRun) == [effects.StopRun(run_id(), 5.0)]
    bench.tell(events.RunCancelled(run_id()))
    assert bench.states()[-1][2] == "KILLED"


def test_a_run_that_had_just_started_when_it_was_killed_is_not_reported_as_running(
    bench: AgentBench,
) -> None:
    bench.launch()
    bench.kill()
    bench.start()
    bench.end()
    assert [name for _, _, name in bench.states()] == ["KILLING", "KILLED"]


def test_a_kill_between_two_runs_takes_effect_at_once(bench: AgentBench) -> None:
    bench.running(restart=ALWAYS)
    bench.end()
    bench.acknowledge()
    bench.kill()
    assert bench.states()[-1][2] == "KILLED"
    bench.pass_time(30)
    assert len(bench.take(effects.StartRun)) == 1


def test_a_kill_ends_what_runs_and_what_waits(bench: AgentBench) -> None:
    bench.running(attempt=1)
    bench.launch(attempt=2)
    bench.kill(attempt=2)
    bench.end(attempt=1)
    ends = {attempt: name for attempt, _, name in bench.states()}
    assert ends == {1: "KILLED", 2: "KILLED"}
    assert len(bench.take(effects.StartRun)) == 1


def test_a_kill_of_an_older_attempt_spares_the_newer_one(bench: AgentBench) -> None:
    bench.running(attempt=2)
    bench.kill(attempt=1)
    assert not bench.take(effects.StopRun)
    assert bench.states() == [(2, 1, "RUNNING"), (1, 1, "KILLED")]


def test_a_killed_service_is_not_restarted(bench: AgentBench) -> None:
    bench.running(restart=ALWAYS)
    bench.kill()
    bench.end(result=BADLY)
    assert not bench.agent.runs.active


# --- status updates and the master's absence ----------------------------------------------------


def test_unacknowledged_updates_are_sent_again_ever_more_seldom(bench: AgentBench) -> None:
    bench.running()
    sent_at = []
    for _ in range(100):
        before = len(bench.updates())
        keep_alive(bench, 5.0)
        if len(bench.updates()) > before:
            sent_at.append(bench.now - 1000)
    assert sent_at == [10, 30, 70, 150, 310]
    assert bench.states() == [(1, 1, "RUNNING")] * 6


def test_an_acknowledged_update_is_not_sent_again(bench: AgentBench) -> None:
    bench.running()
    bench.acknowledge()
    keep_alive(bench, 10 * STATUS_RESEND_BASE_S)
    assert len(bench.updates()) == 1


def test_after_registering_everything_unacknowledged_is_sent_at_once(bench: AgentBench) -> None:
    bench.running()
    bench.end()
    bench.lose()
    bench.sent.clear()
    bench.reconnect()
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "FINISHED")]


def test_while_the_master_is_away_only_the_latest_state_is_kept(bench: AgentBench) -> None:
    bench.running(restart=RestartPolicy(on="always", attempts=1000, delay_s=0.001, max_delay_s=0.001))
    bench.acknowledge()
    bench.lose(jitter=0.99)
    for restarts in range(50):
        bench.end(restarts=restarts)
        bench.pass_time(0.001)
        bench.start(restarts=restarts + 1)
    bench.end(restarts=50)
    bench.kill()  # Not heard: the master is away.
    bench.sent.clear()
    bench.reconnect()
    assert bench.states() == [(1, 2, "STARTING")]
    assert bench.updates()[0].restarts == 51


def test_numbers_have_no_gaps_when_the_master_acknowledges_slowly(bench: AgentBench) -> None:
    bench.running(restart=RestartPolicy(on="always", attempts=1000, delay_s=0.001, max_delay_s=0.001))
    for restarts in range(5):
        bench.end(restarts=restarts)
        bench.pass_time(0.001)
        bench.start(restarts=restarts + 1)
    assert [seq for _, seq, _ in bench.states()] == [1, 2, 3]
    bench.acknowledge(seq=1)
    assert bench.states()[-1] == (1, 4, "RUNNING")
    assert bench.updates()[-1].restarts == 5


def test_the_registration_says_what_runs_and_what_has_ended(bench: AgentBench) -> None:
    bench.running(1)
    bench.running(2)
    bench.end(2)
    bench.launch(3)
    bench.running(4)
    bench.kill(4)
    bench.lose()
    bench.reconnect()
    register = [message for message in bench.sent if isinstance(message, Register)][-1]
    assert {report.task_id: report.state.name for report in register.tasks} == {
        1: "RUNNING",
        2: "FINISHED",
        3: "STARTING",
        4: "KILLING",
    }


def test_a_task_that_must_not_go_on_alone_is_stopped(bench: AgentBench) -> None:
    bench.running(1, stop_after_s=0.1)
    bench.running(2)
    bench.lose(jitter=0.9)
    bench.pass_time(0.1)
    assert [order.run.task_id for order in bench.take(effects.StopRun)] == [1]
    bench.end(1, result=BADLY)
    bench.reconnect()
    last = bench.updates(1)[-1]
    assert (last.state, last.reason) == (TaskState.FAILED, Reason.STOPPED_WHILE_DISCONNECTED)


def test_a_master_that_is_back_in_time_keeps_it(bench: AgentBench) -> None:
    bench.running(1, stop_after_s=60.0)
    bench.lose()
    bench.reconnect()
    keep_alive(bench, 100.0)
    assert not bench.take(effects.StopRun)


def test_behind_a_gateway_that_is_cut_off_the_time_counts_from_its_last_word_with_the_master(
    bench: AgentBench,
) -> None:
    """To such a task the gateway was a master, and it went on for ever."""
    bench.running(1, stop_after_s=60.0)
    bench.running(2)
    for away_s in (10.0, 20.0, 30.0):
        bench.receive(HeartbeatAck(away_s=away_s))
        bench.pass_time(10)
    assert not bench.take(effects.StopRun)
    bench.receive(HeartbeatAck(away_s=40.0))
    bench.lose()
    bench.pass_time(25)
    assert [order.run.task_id for order in bench.take(effects.StopRun)] == [1]


def test_a_gateway_that_reaches_its_master_again_keeps_it(bench: AgentBench) -> None:
    bench.running(1, stop_after_s=60.0)
    bench.receive(HeartbeatAck(away_s=50.0))
    bench.receive(HeartbeatAck())
    keep_alive(bench, 100.0)
    assert not bench.take(effects.StopRun)


def test_a_gateway_says_so_with_the_registration_too(bench: AgentBench) -> None:
    bench.running(1, stop_after_s=60.0)
    bench.lose(jitter=0.0)
    bench.pass_time()
    bench.tell(events.Connected(bench.session))
    bench.receive(Registered(1, 1000.0, 2000.0, "m", 55.0))
    bench.pass_time(4)
    assert not bench.take(effects.StopRun)
    bench.pass_time(2)
    assert len(bench.take(effects.StopRun)) == 1


def test_a_gateway_that_was_restarted_while_it_is_cut_off_does_not_begin_the_count_anew(
    bench: AgentBench,
) -> None:
    """It only knows for how long it has been up: each start gave such tasks all their time again."""
    bench.running(1, stop_after_s=60.0)
    bench.receive(HeartbeatAck(away_s=50.0))
    bench.lose(jitter=0.0)
    bench.pass_time()
    bench.tell(events.Connected(bench.session))
    bench.receive(Registered(1, 1000.0, 2000.0, "m", 1.0))
    bench.pass_time(15)
    assert len(bench.take(effects.StopRun)) == 1


def test_orders_before_the_registration_is_answered_are_ignored() -> None:
    bench = AgentBench()
    bench.begin()
    bench.tell(events.Connected(bench.session))
    bench.launch()
    assert not bench.take(effects.StartRun)


def test_an_update_carries_the_agent_s_time(bench: AgentBench) -> None:
    bench.pass_time(3)
    bench.running()
    assert bench.updates()[0].at == 1003.0
    assert isinstance(bench.updates()[0], StatusUpdate)
    assert WELL.ok
