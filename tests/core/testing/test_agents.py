"""The agent's bench: virtual time, and a journal that must tell the whole truth."""

from __future__ import annotations

import pytest

from edgerm_core.agent import effects
from edgerm_core.agent.session import SessionState
from edgerm_core.testing.agents import BADLY, HEARTBEAT_S, AgentBench, a_launch, records, run_id


@pytest.fixture
def bench() -> AgentBench:
    return AgentBench().come_up()


def test_run_from_launch_to_acknowledged_end(bench: AgentBench) -> None:
    bench.running()
    bench.end(result=BADLY)
    assert bench.states() == [(1, 1, "RUNNING"), (1, 2, "FAILED")]
    assert bench.updates()[-1].exit_code == 3
    bench.acknowledge()
    assert bench.agent.runs.known == {}


def test_effects_are_taken_by_kind(bench: AgentBench) -> None:
    bench.launch()
    [start] = bench.take(effects.StartRun)
    assert start.run == run_id()
    assert start.launch == a_launch()
    assert bench.take(effects.StartRun) == []


def test_records_are_in_the_journal_and_nowhere_else(bench: AgentBench) -> None:
    before = len(bench.journal)
    bench.running()
    assert len(records(bench)) == len(bench.journal) > before
    assert bench.take(effects.WriteRecord) == []


def test_journal_that_lacks_a_record_is_found(bench: AgentBench) -> None:
    bench.running()
    bench.check_journal()
    del bench.journal[1:]
    with pytest.raises(AssertionError):
        bench.end()


def test_restarted_agent_knows_what_its_journal_says(bench: AgentBench) -> None:
    bench.running()
    bench.restart_agent()
    assert bench.starts == 2
    assert list(bench.agent.runs.known) == [(1, 1)]
    assert bench.sent == []
    assert [effect.run for effect in bench.take(effects.RecoverRun)] == [run_id()]


def test_time_passes_deadline_by_deadline(bench: AgentBench) -> None:
    before = len(bench.sent)
    bench.pass_time(3 * HEARTBEAT_S)
    heartbeats = [type(message).__name__ for message in bench.sent[before:]]
    assert heartbeats == ["Heartbeat"] * 3
    deadline = bench.agent.next_deadline()
    assert deadline is not None
    assert deadline > bench.now
    bench.pass_time()
    assert bench.now == deadline


def test_lost_session_comes_back(bench: AgentBench) -> None:
    session = bench.session
    bench.lose()
    assert bench.agent.session.state is SessionState.OFFLINE
    bench.reconnect()
    assert bench.session > session
    assert bench.agent.session.state is not SessionState.OFFLINE
