"""The session: dialling, registering, the lease, refusals."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.agent import effects, events
from edgerm_core.agent.session import FATAL_REFUSALS, SessionState
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.limits import GREETING_TIMEOUT_S, RECONNECT_BASE_S
from edgerm_core.messages import (
    RETRYABLE_REFUSALS,
    Heartbeat,
    HeartbeatAck,
    Inventory,
    Refused,
    Register,
    Registered,
)
from edgerm_core.tasks import TaskState
from edgerm_core.testing.agents import HEARTBEAT_S, INFO, LEASE_S, AgentBench


def heartbeats(bench: AgentBench) -> int:
    return sum(isinstance(message, Heartbeat) for message in bench.sent)


def test_it_dials_at_once_and_says_who_it_is() -> None:
    bench = AgentBench()
    bench.begin()
    assert bench.take(effects.Connect) == [effects.Connect(SessionId(1), 0)]
    bench.tell(events.Connected(SessionId(1)))
    (register,) = bench.sent
    assert isinstance(register, Register)
    assert (register.info, register.boot_id, register.incarnation) == (INFO, "boot", "i1")


def test_masters_are_dialled_in_turn_with_jittered_backoff() -> None:
    bench = AgentBench(masters=2)
    bench.begin()
    for _ in range(3):
        bench.lose(jitter=0.5)
        bench.pass_time()
    assert [order.master_index for order in bench.take(effects.Connect)] == [0, 1, 0, 1]
    assert bench.now == 1000 + 0.5 * RECONNECT_BASE_S * (1 + 2 + 4)


def test_a_heartbeat_is_sent_only_when_nothing_else_was(bench: AgentBench) -> None:
    bench.pass_time(HEARTBEAT_S - 1)
    bench.tell(events.FrameSent(bench.session))
    bench.receive(HeartbeatAck())
    bench.pass_time(HEARTBEAT_S - 1)
    assert heartbeats(bench) == 0
    bench.pass_time(1)
    assert heartbeats(bench) == 1


def test_the_master_changes_the_cadence(bench: AgentBench) -> None:
    bench.receive(HeartbeatAck(2.0, 100.0))
    bench.pass_time(10)
    assert heartbeats(bench) == 5


def test_a_cadence_of_zero_does_not_make_it_spin() -> None:
    bench = AgentBench()
    bench.begin()
    bench.tell(events.Connected(bench.session))
    bench.receive(Registered(1, 0.0, 30.0))
    bench.pass_time(1.0)
    assert heartbeats(bench) <= 21


def test_a_silent_master_is_dropped_after_the_lease(bench: AgentBench) -> None:
    bench.pass_time(LEASE_S - 0.1)
    assert not bench.take(effects.Disconnect)
    bench.pass_time(0.1)
    (order,) = bench.take(effects.Disconnect)
    assert "not a word" in order.reason
    bench.lose()
    bench.pass_time()
    assert bench.take(effects.Connect)[-1].session == SessionId(2)


def test_a_master_that_does_not_answer_the_registration_is_dropped() -> None:
    bench = AgentBench()
    bench.begin()
    bench.tell(events.Connected(bench.session))
    bench.pass_time(GREETING_TIMEOUT_S)
    assert "no answer" in bench.take(effects.Disconnect)[0].reason


@pytest.mark.parametrize("code", sorted(FATAL_REFUSALS))
def test_a_final_refusal_ends_the_agent_with_its_sentence(bench: AgentBench, code: str) -> None:
    bench.receive(Refused(code, "because"))
    assert bench.take(effects.Stop) == [effects.Stop(code, "because")]
    bench.lose()
    assert bench.agent.next_deadline() is None, "a stopped agent does not dial again"


@pytest.mark.parametrize("code", [*sorted(RETRYABLE_REFUSALS), "of-a-later-version"])
def test_any_other_refusal_means_come_back_later(bench: AgentBench, code: str) -> None:
    bench.receive(Refused(code, "not now"))
    assert bench.take(effects.Disconnect)
    bench.lose()
    bench.reconnect()
    assert bench.agent.session.registered


def test_speaking_without_an_answer_is_no_sign_of_life(bench: AgentBench) -> None:
    """A followed log may keep the link busy for ever although nobody listens."""
    started = bench.now
    while bench.now < started + LEASE_S - 1:
        bench.pass_time(1.0)
        bench.tell(events.FrameSent(bench.session))
    assert sum(isinstance(message, Heartbeat) for message in bench.sent) == 3
    bench.pass_time(1.0)
    assert bench.take(effects.Disconnect)


def test_news_of_an_older_session_is_ignored(bench: AgentBench) -> None:
    old = bench.session
    bench.lose()
    bench.reconnect()
    bench.tell(events.Disconnected(old, "late news", 0.5))
    bench.tell(events.FrameReceived(old, [Refused("version", "late news")]))
    assert bench.agent.session.registered


def test_changes_of_the_inventory_are_told_alone(bench: AgentBench) -> None:
    changed = msgspec.structs.replace(INFO, attributes={"os": "plan9"})
    bench.tell(events.InventoryChanged(changed))
    bench.tell(events.InventoryChanged(changed))
    assert bench.sent[1:] == [Inventory(attributes={"os": "plan9"})]


def test_an_inventory_that_changed_offline_is_in_the_registration(bench: AgentBench) -> None:
    bench.lose()
    changed = msgspec.structs.replace(INFO, attributes={"os": "plan9"})
    bench.tell(events.InventoryChanged(changed))
    bench.reconnect()
    registers = [message for message in bench.sent if isinstance(message, Register)]
    assert registers[-1].info == changed
    assert not any(isinstance(message, Inventory) for message in bench.sent)


def test_what_changes_while_the_registration_is_on_its_way_is_told_after_it(bench: AgentBench) -> None:
    """The master went on with what Register had said, for as long as the session lasted."""
    bench.lose()
    while bench.agent.session.state is SessionState.OFFLINE:
        bench.pass_time()
    bench.tell(events.Connected(bench.session))
    bench.tell(events.InventoryChanged(msgspec.structs.replace(INFO, attributes={"os": "plan9"})))
    assert not any(isinstance(message, Inventory) for message in bench.sent)
    bench.receive(Registered(1, HEARTBEAT_S, LEASE_S, "m"))
    assert bench.sent[-1] == Inventory(attributes={"os": "plan9"})


# --- removed, and other books -------------------------------------------------------------------


def test_a_removed_agent_ends_its_tasks_and_registers_anew(bench: AgentBench) -> None:
    bench.running(1)
    bench.launch(2, executor="sick")  # Ended, not acknowledged.
    bench.sent.clear()
    bench.receive(Refused("removed", "the agent was removed"))
    bench.lose()
    assert [order.run.task_id for order in bench.take(effects.StopRun)] == [1]
    bench.pass_time(1000)
    assert len(bench.take(effects.Connect)) == 1, "it waits until nothing runs any more"
    bench.end(1)
    assert len(bench.take(effects.Connect)) == 1
    bench.register()
    (register,) = (message for message in bench.sent if isinstance(message, Register))
    assert register.tasks == ()
    assert not bench.updates(1)
    bench.running(1)
    assert bench.updates(1)[-1].state is TaskState.RUNNING


def test_a_removed_agent_that_is_restarted_still_ends_its_tasks_first(bench: AgentBench) -> None:
    bench.running(1)
    bench.receive(Refused("removed", "the agent was removed"))
    bench.restart_agent()
    assert len(bench.take(effects.RecoverRun)) == len(bench.take(effects.StopRun)) == 1
    assert not bench.take(effects.Connect)
    bench.tell(events.RunLost(bench.agent.runs.active[TaskId(1)].id, "gone"))
    assert len(bench.take(effects.Connect)) == 1


def test_tasks_of_other_books_are_not_taken_for_the_new_master_s(bench: AgentBench) -> None:
    bench.running(1)
    bench.lose()
    bench.pass_time()
    bench.register(master_id="another")
    assert len(bench.take(effects.StopRun)) == 1
    assert bench.take(effects.Disconnect)
    bench.lose()
    bench.end(1)
    bench.pass_time()
    bench.sent.clear()
    bench.register(master_id="another")
    bench.running(1)
    assert bench.states() == [(1, 1, "RUNNING")]


def test_the_same_master_after_its_restart_keeps_the_tasks(bench: AgentBench) -> None:
    bench.running(1)
    bench.lose()
    bench.reconnect()
    assert not bench.take(effects.StopRun)
