"""The agent process dies and comes back: what goes on, what starts again, what is lost."""

from __future__ import annotations

import pytest

from edgerm_core.agent import effects, events
from edgerm_core.agent.records import decode_record, encode_record
from edgerm_core.agent.recovery import recover
from edgerm_core.ids import TaskId
from edgerm_core.tasks import Reason, RestartPolicy, TaskState
from edgerm_core.testing.agents import BADLY, AgentBench, run_id

ALWAYS = RestartPolicy(on="always", attempts=2, interval_s=100, delay_s=1)


def test_a_run_that_survived_goes_on_without_a_word(bench: AgentBench) -> None:
    bench.running()
    bench.acknowledge()
    handle = bench.agent.runs.active[TaskId(1)].handle
    bench.restart_agent()
    (order,) = bench.take(effects.RecoverRun)
    assert (order.run, order.handle) == (run_id(), handle)
    bench.tell(events.RunRecovered(run_id(), order.handle))
    bench.register()
    # The acknowledgement of what was not final is not written down, so that update comes once more.
    assert bench.states() == [(1, 1, "RUNNING")]
    bench.end()
    assert bench.states()[-1] == (1, 2, "FINISHED")


def test_a_run_is_recovered_before_any_master_is_reached(bench: AgentBench) -> None:
    bench.running()
    bench.restart_agent()
    assert [type(effect) for effect in bench.done] == [effects.RecoverRun, effects.Connect]


def test_a_lost_run_is_a_loss_for_the_master_to_place_again(bench: AgentBench) -> None:
    bench.running()
    bench.restart_agent()
    bench.tell(events.RunLost(run_id(), "it is not running any more"))
    bench.register()
    last = bench.updates()[-1]
    assert (last.seq, last.state, last.reason) == (2, TaskState.FAILED, Reason.AGENT_RESTARTED)


def test_a_lost_service_starts_again_on_its_own(bench: AgentBench) -> None:
    bench.running(restart=ALWAYS)
    bench.restart_agent()
    bench.tell(events.RunLost(run_id(), "the machine was switched off"))
    bench.lose(jitter=0.0)
    bench.pass_time(1.0)
    assert [order.run for order in bench.take(effects.StartRun)] == [run_id(restarts=1)]


def test_a_restart_that_was_due_by_a_clock_set_back_since_comes_after_its_longest_delay(
    bench: AgentBench,
) -> None:
    """A board without a battery boots in 1970: the restart was due in fifty years."""
    policy = RestartPolicy(on="always", delay_s=20, max_delay_s=30)
    bench.now = 1_700_000_000.0
    bench.running(restart=policy)
    bench.end(result=BADLY)
    bench.now = 10.0
    bench.restart_agent()
    bench.lose(jitter=0.0)
    bench.pass_time(31.0)
    assert [order.run for order in bench.take(effects.StartRun)] == [run_id(restarts=1)]


def test_a_time_limit_holds_although_the_clock_has_been_set_back(bench: AgentBench) -> None:
    bench.now = 1_700_000_000.0
    bench.running(time_limit_s=100.0)
    bench.now = 10.0
    bench.restart_agent()
    (order,) = bench.take(effects.RecoverRun)
    bench.tell(events.RunRecovered(order.run, order.handle))
    bench.lose(jitter=0.0)
    bench.pass_time(101.0)
    assert bench.take(effects.StopRun)


def test_a_service_that_takes_its_agent_down_each_time_is_given_up(bench: AgentBench) -> None:
    bench.running(restart=ALWAYS)
    for restarts in range(2):
        bench.restart_agent()
        bench.tell(events.RunLost(run_id(restarts=restarts), "gone"))
        while (due := bench.agent.turn.deadlines.next()) is not None and bench.agent.runs.active:
            bench.now = max(bench.now, due)
            bench.tell(events.Ticked())
            if bench.take(effects.StartRun):
                break
        bench.start(restarts=restarts + 1)
    bench.restart_agent()
    bench.tell(events.RunLost(run_id(restarts=2), "gone"))
    assert not bench.agent.runs.active


def test_a_run_that_was_being_started_is_not_started_a_second_time(bench: AgentBench) -> None:
    bench.launch()
    bench.restart_agent()
    assert not bench.take(effects.StartRun)
    bench.register()
    assert bench.updates()[-1].reason == Reason.AGENT_RESTARTED


def test_a_kill_outlives_the_agent(bench: AgentBench) -> None:
    bench.running()
    bench.kill()
    bench.restart_agent()
    assert [type(effect) for effect in bench.done][:2] == [effects.RecoverRun, effects.StopRun]
    bench.end(result=BADLY)
    bench.register()
    assert bench.states()[-1] == (1, 3, "KILLED")


def test_a_waiting_attempt_starts_after_the_restart_when_the_older_one_ends(bench: AgentBench) -> None:
    bench.running(attempt=1)
    bench.launch(attempt=2)
    bench.restart_agent()
    assert not bench.take(effects.StartRun)
    bench.tell(events.RunLost(run_id(), "gone"))
    assert [order.run.attempt for order in bench.take(effects.StartRun)] == [2]


def test_a_delayed_restart_comes_when_it_was_due(bench: AgentBench) -> None:
    bench.running(restart=RestartPolicy(on="always", delay_s=50))
    bench.end()
    bench.pass_time(20)
    bench.restart_agent()
    bench.pass_time(30)
    assert [order.run for order in bench.take(effects.StartRun)] == [run_id(restarts=1)]


def test_the_time_limit_goes_on_counting(bench: AgentBench) -> None:
    bench.running(time_limit_s=50.0)
    bench.pass_time(20)
    bench.restart_agent()
    bench.pass_time(30)
    assert len(bench.take(effects.StopRun)) == 1


def test_unacknowledged_ends_are_sent_after_the_restart_with_their_numbers(bench: AgentBench) -> None:
    bench.running()
    bench.end()
    bench.restart_agent()
    bench.register()
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "FINISHED")]
    bench.acknowledge()
    bench.restart_agent()
    assert not bench.agent.runs.known


def test_a_task_that_must_not_go_on_alone_is_stopped_if_the_master_does_not_come(
    bench: AgentBench,
) -> None:
    bench.running(stop_after_s=5.0)
    bench.restart_agent()
    bench.pass_time(5.0)
    assert len(bench.take(effects.StopRun)) == 1


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_compact_journal_says_the_same(bench: AgentBench, acknowledged: bool) -> None:
    bench.running(1, restart=ALWAYS)
    bench.end(1)
    bench.running(2, attempt=1)
    bench.launch(2, attempt=2)
    bench.launch(3)
    bench.running(4)
    bench.kill(4)
    bench.running(5)
    bench.end(5)
    if acknowledged:
        for task_id in (1, 2, 4, 5):
            bench.acknowledge(task_id)
    bench.launch(6)
    bench.lose()
    bench.tell(events.RunFetching(run_id(6)))
    bench.journal = [encode_record(record) for record in bench.agent.records()]
    bench.check_journal()
    assert recover(map(decode_record, bench.journal)).master_id == "m"
