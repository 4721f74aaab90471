"""Sessions on the master: who is on the other end, and what it may say."""

from __future__ import annotations

import pytest

from edgerm_core.limits import GREETING_TIMEOUT_S
from edgerm_core.master.events import Received, SessionClosed
from edgerm_core.messages import (
    AnyMessage,
    Drain,
    Greet,
    Greeted,
    Heartbeat,
    HeartbeatAck,
    Kill,
    Query,
    RefusalCode,
    Revive,
    StatusUpdate,
    Submit,
    Submitted,
)
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import VERSIONS, MasterBench, Peer, spec


def test_a_connection_that_does_not_say_who_it_is_is_closed(bench: MasterBench) -> None:
    silent = bench.peers[bench.connect()]
    operator = bench.operator()
    bench.advance(GREETING_TIMEOUT_S - 0.1)
    early = silent.closed
    assert early is None
    bench.advance(0.2)
    assert silent.closed is not None
    assert silent.closed.code == RefusalCode.UNEXPECTED
    assert "no greeting within 10 s" in silent.closed.message
    assert operator.closed is None


def test_a_message_before_the_greeting_ends_the_session_with_a_sentence(bench: MasterBench) -> None:
    peer = bench.peers[bench.connect()]
    peer.send(Submit(1, ("k",), (spec(),)))
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.UNEXPECTED
    assert peer.closed.message == "Submit before a greeting: begin with Register, Subscribe or Greet"
    assert not bench.state.tasks


def test_an_operator_is_greeted_with_version_and_master(bench: MasterBench) -> None:
    assert bench.operator().take(Greeted) == [Greeted(1, "bench")]


def test_an_operators_tool_of_another_time_is_refused(bench: MasterBench) -> None:
    peer = bench.peers[bench.connect()]
    peer.send(Greet((8, 9)))
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.VERSION
    assert "speaks 8 to 9" in peer.closed.message


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("agent", Submit(1, ("k",), (spec(),))),
        ("agent", Query(1, "cluster")),
        ("framework", Drain(1, "a1")),  # type: ignore[arg-type]
        ("framework", Query(1, "cluster")),
        ("framework", StatusUpdate(1, 1, 1, TaskState.FINISHED)),  # type: ignore[arg-type]
        ("operator", Submit(1, ("k",), (spec(),))),
        ("operator", Revive()),
        ("operator", Kill(1, 1)),  # type: ignore[arg-type]
        ("operator", Greet(VERSIONS)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_message_for_another_role_ends_the_session_with_a_sentence(
    bench: MasterBench, role: str, message: AnyMessage
) -> None:
    peer: Peer = {
        "agent": lambda: bench.agent("a1"),
        "framework": lambda: bench.framework("f1"),
        "operator": bench.operator,
    }[role]()
    bystander = bench.framework("bystander")
    peer.send(message)
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.UNEXPECTED
    assert peer.closed.message == f"{type(message).__name__} is not for a peer in the role of {role}"
    assert bystander.closed is None
    assert bench.submit(bystander, spec())


@pytest.mark.parametrize("role", ["framework", "operator"])
def test_a_heartbeat_of_a_framework_or_an_operator_changes_nothing(bench: MasterBench, role: str) -> None:
    peer = bench.framework("f1") if role == "framework" else bench.operator()
    records = {kind: dict(table) for kind, table in bench.records.items()}
    peer.inbox.clear()
    peer.send(Heartbeat())
    assert peer.closed is None
    assert not peer.inbox
    assert {kind: dict(table) for kind, table in bench.records.items()} == records


def test_an_agents_heartbeat_is_answered(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    agent.send(Heartbeat())
    assert agent.take(HeartbeatAck) == [HeartbeatAck()]


def test_one_peers_nonsense_in_a_batch_harms_nobody_elses_requests(bench: MasterBench) -> None:
    agent, framework = bench.agent("a1"), bench.framework("f1")
    stranger = bench.connect()
    bench.handle(
        Received(stranger, Revive()),
        Received(framework.session_id, Submit(1, ("k",), (spec(),))),
        Received(stranger, Heartbeat()),
        Received(agent.session_id, Heartbeat()),
    )
    assert bench.peers[stranger].closed is not None
    assert framework.take(Submitted)
    assert agent.take(HeartbeatAck)


def test_messages_and_ends_of_sessions_that_are_gone_are_ignored(bench: MasterBench) -> None:
    framework = bench.framework("f1")
    framework.hang_up()
    bench.handle(Received(framework.session_id, Submit(1, ("k",), (spec(),))))
    bench.handle(SessionClosed(framework.session_id, "once more"))
    assert not bench.state.tasks


def test_a_lost_connection_is_reported_to_the_operator_with_its_reason(bench: MasterBench) -> None:
    bench.agent("a1").hang_up("no route to host")
    assert "agent a1 lost its connection: no route to host" in bench.reports


def test_sessions_leave_nothing_behind(bench: MasterBench) -> None:
    for peer in (bench.agent("a1"), bench.framework("f1"), bench.operator(), bench.peers[bench.connect()]):
        peer.hang_up()
    assert not bench.state.sessions
