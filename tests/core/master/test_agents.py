"""Agents on the master: registration, leases, return, duplicates, drain, forgetting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgerm_core.agent.session import FATAL_REFUSALS
from edgerm_core.agents import AgentInfo, AgentState, Fingerprint
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.limits import MAX_HEARTBEATS_PER_S
from edgerm_core.master.events import Heard, SessionClosed, SessionOpened
from edgerm_core.messages import (
    Drain,
    Failed,
    Forget,
    Heartbeat,
    HeartbeatAck,
    Inventory,
    Kill,
    Launch,
    RefusalCode,
    Register,
    Registered,
    TaskReport,
)
from edgerm_core.resources import Resources
from edgerm_core.tasks import DisconnectPolicy, Reason, TaskState
from edgerm_core.testing.masters import VERSIONS, MasterBench, ScriptedAgent, spec


def agent_state(bench: MasterBench) -> AgentState:
    state: AgentState = bench.state.agents["a1"].state
    return state


def test_registering_gives_the_cadence_and_the_lease(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (answer,) = agent.take(Registered)
    assert answer.version == 1
    assert answer.heartbeat_s == 10.0
    assert answer.lease_s == 35.0


def test_a_constrained_link_gets_a_slower_cadence(bench: MasterBench) -> None:
    agent = bench.agent("a1", attributes={"link.class": "constrained"})
    assert agent.take(Registered)[0].heartbeat_s == 60.0


def test_the_cadence_stretches_with_the_number_of_agents(make_bench: Callable[..., MasterBench]) -> None:
    bench = make_bench(heartbeat_s=0.05)
    first = bench.agent("a000")
    for index in range(1, 150):
        bench.agent(f"a{index:03d}")
    first.send(Heartbeat())
    (answer,) = first.take(HeartbeatAck)
    assert answer.heartbeat_s == 150 / MAX_HEARTBEATS_PER_S


def test_versions_without_overlap_are_refused_with_a_sentence(bench: MasterBench) -> None:
    peer = bench.peers[bench.connect()]
    info = bench.agent("known").info
    peer.send(Register((7, 9), info, "b", "i"))
    assert peer.closed is not None
    assert peer.closed.code == RefusalCode.VERSION
    assert "speaks 7 to 9" in peer.closed.message


def test_a_silent_agent_is_unreachable_after_its_lease_and_ready_again_when_back(
    bench: MasterBench,
) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(disconnect=DisconnectPolicy(lost_after_s=100)))
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(34.9)
    assert agent_state(bench) is AgentState.READY
    bench.advance(0.2)
    assert agent_state(bench) is AgentState.UNREACHABLE
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    assert agent.closed is not None

    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert agent_state(bench) is AgentState.READY
    task = bench.state.tasks[task_id]
    assert (task.state, task.reason, task.attempt) == (
        TaskState.RUNNING,
        Reason.AGENT_RETURNED,
        1,
    )
    assert not back.take(Launch)


def test_heartbeats_keep_the_lease(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    bench.live(200, agent, every_s=30)
    assert agent_state(bench) is AgentState.READY


def test_an_agent_without_a_connection_gets_no_tasks(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    agent.hang_up()
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    bench.agent("a1")
    assert bench.state.tasks[task_id].state is TaskState.STAGING


def test_a_restarted_agent_takes_over_from_its_old_connection(bench: MasterBench) -> None:
    old = bench.agent("a1", incarnation="i1")
    new = bench.agent("a1", incarnation="i2")
    assert old.closed is not None
    assert old.closed.code == RefusalCode.SESSION_REPLACED
    assert new.closed is None


def test_two_machines_with_one_id_are_found_out_when_the_first_comes_back(bench: MasterBench) -> None:
    """A copied data directory: both are alive, so the replaced one connects again."""
    bench.agent("a1", incarnation="i1")
    second = bench.agent("a1", incarnation="i2")
    first_again = bench.agent("a1", incarnation="i1")
    assert first_again.closed is not None
    assert first_again.closed.code == RefusalCode.DUPLICATE_AGENT
    assert "data directory copied" in first_again.closed.message
    assert second.closed is None
    assert bench.state.agents["a1"].incarnation == "i2"


def test_a_second_machine_with_the_id_waits_until_the_first_has_gone(bench: MasterBench) -> None:
    first = bench.agent("a1", boot_id="b1", incarnation="i1")
    second = bench.agent("a1", boot_id="b2", incarnation="i2")
    assert second.closed is not None
    assert second.closed.code == RefusalCode.DUPLICATE_AGENT
    assert "data directory was copied" in second.closed.message
    assert first.closed is None
    bench.advance(36)
    assert bench.agent("a1", boot_id="b2", incarnation="i2").closed is None


def test_messages_of_a_replaced_connection_change_nothing(bench: MasterBench) -> None:
    old = bench.agent("a1", incarnation="i1")
    bench.agent("a1", "cpus:1;mem:10", incarnation="i2")
    old.send(Inventory(totals=Resources.parse("cpus:99;mem:99")))
    assert bench.state.agents["a1"].totals.scalars["cpus"] == 1000


def test_a_bad_agent_id_is_refused(bench: MasterBench) -> None:
    agent = bench.agent("../../etc")
    assert agent.closed is not None
    assert agent.closed.code == RefusalCode.MALFORMED
    assert not bench.state.agents


def test_inventory_changes_what_can_be_placed(bench: MasterBench) -> None:
    agent = bench.agent("a1", executors=(Fingerprint("test", healthy=False, problem="no engine"),))
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    agent.send(Inventory(executors=(Fingerprint("test"),)))
    assert bench.state.tasks[task_id].state is TaskState.STAGING


def test_totals_that_shrink_below_what_is_held_stop_new_placements(bench: MasterBench) -> None:
    agent = bench.agent("a1", "cpus:4;mem:1000")
    framework = bench.framework("f1")
    half = spec(resources="cpus:2;mem:10")
    first, second = bench.submit(framework, half, half)
    agent.send(Inventory(totals=Resources.parse("cpus:1;mem:1000")))
    (third,) = bench.submit(framework, spec(resources="cpus:0.5;mem:1"))
    agent.run_to_end(first)
    assert bench.state.tasks[third].state is TaskState.PENDING
    agent.run_to_end(second)
    assert bench.state.tasks[third].state is TaskState.STAGING


def test_draining_moves_tasks_and_undo_lets_it_work_again(bench: MasterBench) -> None:
    first = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    first.status(task_id, TaskState.RUNNING, 1)
    bench.agent("a2")
    operator = bench.operator()
    operator.send(Drain(1, "a1"))  # type: ignore[arg-type]
    assert agent_state(bench) is AgentState.DRAINING
    (kill,) = first.take(Kill)
    assert kill.reason == Reason.AGENT_DRAINING
    assert bench.state.tasks[task_id].state is TaskState.KILLING
    first.status(task_id, TaskState.KILLED, 2, reason=kill.reason)
    task = bench.state.tasks[task_id]
    assert (task.state, task.agent_id, task.attempt, task.losses) == (TaskState.STAGING, "a2", 2, 0)
    operator.send(Drain(2, "a1", undo=True))  # type: ignore[arg-type]
    assert agent_state(bench) is AgentState.READY


def test_a_kill_by_the_framework_wins_over_draining(bench: MasterBench) -> None:
    from edgerm_core.messages import KillTasks

    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.operator().send(Drain(1, "a1"))  # type: ignore[arg-type]
    framework.send(KillTasks(9, (task_id,)))
    agent.status(task_id, TaskState.KILLED, 2, reason=Reason.AGENT_DRAINING)
    assert bench.state.tasks[task_id].state is TaskState.KILLED


def test_draining_an_unknown_agent_fails_with_its_name(bench: MasterBench) -> None:
    operator = bench.operator()
    operator.send(Drain(1, "nobody"))  # type: ignore[arg-type]
    assert "'nobody'" in operator.take(Failed)[0].message


def test_a_forgotten_agents_tasks_are_lost_at_once(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.agent("a2", "cpus:4;mem:1000")
    bench.operator().send(Forget(1, "a1"))  # type: ignore[arg-type]
    assert "a1" not in bench.state.agents
    task = bench.state.tasks[task_id]
    assert (task.state, task.agent_id, task.attempt) == (TaskState.STAGING, "a2", 2)
    assert agent.closed is not None
    assert agent.closed.code == RefusalCode.REMOVED


def test_a_task_is_replaced_after_its_patience_and_the_old_run_is_stopped_on_return(
    bench: MasterBench,
) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(disconnect=DisconnectPolicy(lost_after_s=20)))
    agent.status(task_id, TaskState.RUNNING, 1)
    other = bench.agent("a2")
    bench.live(54, other)
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE
    bench.live(2, other)
    task = bench.state.tasks[task_id]
    assert (task.state, task.agent_id, task.attempt) == (TaskState.STAGING, "a2", 2)
    other.status(task_id, TaskState.RUNNING, 1, attempt=2)

    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    (kill,) = back.take(Kill)
    assert (kill.task_id, kill.attempt) == (task_id, 1)
    # Until the old run has ended, its resources are not given to anybody else.
    assert bench.state.agents["a1"].free.scalars["cpus"] == 3000
    back.status(task_id, TaskState.KILLED, 2, attempt=1)
    assert bench.state.agents["a1"].free.scalars["cpus"] == 4000
    assert bench.state.tasks[task_id].state is TaskState.RUNNING


def test_a_run_is_taken_back_when_its_agent_returns_before_a_replacement_was_placed(
    bench: MasterBench,
) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(disconnect=DisconnectPolicy(lost_after_s=5)))
    agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(60)
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    task = bench.state.tasks[task_id]
    assert (task.state, task.attempt, task.agent_id) == (TaskState.RUNNING, 1, "a1")
    assert not back.take(Launch)
    assert not back.take(Kill)
    back.status(task_id, TaskState.FINISHED, 2)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED


def test_a_task_that_may_not_be_replaced_waits_for_its_agent(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    policy = DisconnectPolicy(lost_after_s=5, replace=False)
    (task_id,) = bench.submit(framework, spec(disconnect=policy))
    agent.status(task_id, TaskState.RUNNING, 1)
    other = bench.agent("a2")
    bench.live(300, other)
    assert bench.state.tasks[task_id].state is TaskState.UNREACHABLE


def test_a_lost_launch_goes_out_again(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    bench.submit(framework, spec())
    assert len(agent.take(Launch)) == 1
    bench.advance(2)
    agent.send(Heartbeat())
    assert not agent.take(Launch)
    bench.advance(4)
    agent.send(Heartbeat())
    assert len(agent.take(Launch)) == 1


def test_a_task_that_an_agent_lost_is_placed_again(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    agent.hang_up()
    back = bench.agent("a1", incarnation="i2")
    task = bench.state.tasks[task_id]
    assert (task.state, task.attempt) == (TaskState.STAGING, 2)
    assert back.take(Launch)[0].attempt == 2


def test_a_task_nobody_knows_is_stopped(bench: MasterBench) -> None:
    agent = bench.agent("a1", tasks=[TaskReport(99, 3, TaskState.RUNNING)])  # type: ignore[arg-type]
    (kill,) = agent.take(Kill)
    assert (kill.task_id, kill.attempt) == (99, 3)


def test_an_agent_that_stays_away_for_long_is_forgotten(bench: MasterBench) -> None:
    bench.agent("a1")
    bench.advance(15 * 86_400)
    assert not bench.state.agents
    assert "agent" not in bench.records or not bench.records["agent"]


def test_reregistering_in_one_session_is_harmless(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    agent.send(Register(VERSIONS, agent.info, "b1", "i1"))
    assert agent.closed is None
    assert len(agent.take(Registered)) == 2


def test_nothing_is_placed_beside_what_a_forgotten_agent_came_back_with(bench: MasterBench) -> None:
    """Its runs are on no books, and hold resources all the same until they have been stopped."""
    agent = bench.agent("a1", "cpus:1;mem:100", incarnation="i1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.status(task_id, TaskState.RUNNING, 1)
    agent.hang_up()
    bench.operator().send(Forget(1, agent.info.id))
    back = bench.agent("a1", "cpus:1;mem:100", tasks=[TaskReport(task_id, 1, TaskState.RUNNING)])
    assert [kill.attempt for kill in back.take(Kill)] == [1]
    assert not back.take(Launch)
    back.status(task_id, TaskState.KILLING, 2)
    assert not back.take(Launch)
    back.status(task_id, TaskState.KILLED, 3)
    assert [launch.attempt for launch in back.take(Launch)] == [2]


def test_what_it_came_back_with_is_over_when_it_registers_without(bench: MasterBench) -> None:
    bench.agent("a1", tasks=[TaskReport(99, 3, TaskState.RUNNING)])  # type: ignore[arg-type]
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    assert bench.state.tasks[task_id].state is TaskState.PENDING
    bench.agent("a1", incarnation="i2")
    assert bench.state.tasks[task_id].state is TaskState.STAGING


def test_what_a_process_of_before_said_comes_late_and_changes_nothing(bench: MasterBench) -> None:
    """It died while its transport repeated its registration."""
    old = bench.connect()
    agent = bench.agent("a1", incarnation="i2")
    late = ScriptedAgent(bench, old, agent.info)
    bench.peers[old] = late
    late.send(Register(VERSIONS, agent.info, "b1", "i1"))
    assert late.closed is not None
    assert agent.closed is None
    assert bench.state.agents[AgentId("a1")].session_id == agent.session_id


# --- behind gateways --------------------------------------------------------------------------------


def via(bench: MasterBench, gateway: str = "gw", **fields: Any) -> SessionId:
    """Open a session that a gateway relays."""
    session_id = bench.connect()
    bench.handle(SessionClosed(session_id, "opened in another way"))
    bench.handle(SessionOpened(session_id, "bench", via=AgentId(gateway), **fields))
    return session_id


def relayed(bench: MasterBench, gateway: str = "gw", age_s: float = 0.0, **fields: Any) -> ScriptedAgent:
    """Register agent `a1` through a gateway."""
    info = AgentInfo(
        AgentId("a1"), "a1", Resources.parse("cpus:4;mem:1000"), executors=(Fingerprint("test"),)
    )
    peer = ScriptedAgent(bench, via(bench, gateway, age_s=age_s), info)
    bench.peers[peer.session_id] = peer
    tasks = tuple(fields.pop("tasks", ()))
    peer.send(Register(VERSIONS, info, "b1", fields.pop("incarnation", "i1"), tasks))
    return peer


def test_an_agent_moves_from_one_gateway_to_another(bench: MasterBench) -> None:
    first = relayed(bench, "g1")
    second = relayed(bench, "g2")
    assert first.closed is not None
    assert first.closed.code == RefusalCode.SESSION_REPLACED
    assert second.closed is None
    assert bench.state.agents["a1"].via == "g2"


def test_an_agent_that_left_a_gateway_is_not_stopped_by_what_the_gateway_still_says(
    bench: MasterBench,
) -> None:
    """Its Register was on its way over a slow uplink while the agent dialled the master itself."""
    direct = bench.agent("a1", incarnation="i1")
    late = relayed(bench, "g1", incarnation="i1")
    assert late.closed is None
    assert direct.closed is not None
    assert direct.closed.code not in FATAL_REFUSALS
    late.hang_up()
    again = bench.agent("a1", incarnation="i1")
    assert again.closed is None
    assert bench.state.agents["a1"].via is None


def test_a_gateway_that_was_cut_off_does_not_take_back_an_agent_that_has_moved_on(
    bench: MasterBench,
) -> None:
    relayed(bench, "g1").hang_up()
    bench.advance(5)
    second = relayed(bench, "g2")
    bench.advance(5)
    late = relayed(bench, "g1", age_s=10.0)
    assert late.closed is not None
    assert late.closed.code == RefusalCode.SESSION_REPLACED
    assert second.closed is None
    back = relayed(bench, "g1", age_s=1.0)
    assert back.closed is None, "it has registered there since"
    assert bench.state.agents["a1"].via == "g1"


def test_a_restarted_agent_is_newer_whatever_its_gateway_says(bench: MasterBench) -> None:
    relayed(bench, "g1").hang_up()
    bench.advance(5)
    assert relayed(bench, "g2", age_s=60.0, incarnation="i2").closed is None


def test_a_device_that_its_gateway_has_heard_keeps_its_lease_and_gets_its_orders(
    bench: MasterBench,
) -> None:
    agent = relayed(bench)
    bench.submit(bench.framework("f1"), spec())
    assert agent.take(Launch)
    for _ in range(10):
        bench.advance(30)
        bench.handle(Heard((agent.session_id, SessionId(99))))
    assert agent_state(bench) is AgentState.READY
    assert len(agent.take(Launch)) == 10
    assert not agent.take(HeartbeatAck), "its gateway has answered"


def test_an_end_that_somebody_else_has_acknowledged_is_asked_for_again(bench: MasterBench) -> None:
    """A process that lives forgets only what has been acknowledged. Taken for lost, the task ran twice."""
    agent = relayed(bench, "g1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.RUNNING, 3)
    agent.hang_up()
    back = relayed(bench, "g2")
    assert [launch.attempt for launch in back.take(Launch)] == [1]
    back.status(task_id, TaskState.FINISHED, 4, reason="exited")
    task = bench.state.tasks[task_id]
    assert (task.state, task.attempt, task.losses) == (TaskState.FINISHED, 1, 0)


def test_what_such_an_agent_has_really_forgotten_runs_as_the_same_attempt(bench: MasterBench) -> None:
    agent = relayed(bench, "g1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.RUNNING, 7)
    agent.hang_up()
    back = relayed(bench, "g2")
    back.status(task_id, TaskState.RUNNING, 1)
    back.status(task_id, TaskState.FINISHED, 2)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED


def test_an_end_that_was_asked_for_is_not_run_anew_by_the_next_process(bench: MasterBench) -> None:
    """It dies before it can answer. Its successor knows of no attempt, and would begin it again."""
    agent = bench.agent("a1", incarnation="i1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.status(task_id, TaskState.RUNNING, 3)
    agent.hang_up()
    back = bench.agent("a1", incarnation="i1")
    assert [launch.attempt for launch in back.take(Launch)] == [1], "asks how it ended"
    back.hang_up()
    successor = bench.agent("a1", incarnation="i2")
    assert [launch.attempt for launch in successor.take(Launch)] == [2]


def test_an_order_to_a_process_behind_a_gateway_that_is_gone_is_not_repeated_to_the_next_one(
    bench: MasterBench,
) -> None:
    """Its end may be with a gateway that is cut off: another attempt is made, so that both can be told
    apart."""
    agent = relayed(bench, "g1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    assert agent.take(Launch)
    agent.hang_up()
    back = relayed(bench, "g2", incarnation="i2")
    assert [launch.attempt for launch in back.take(Launch)] == [2]
    assert bench.state.tasks[task_id].losses == 1


def test_an_order_that_was_never_confirmed_is_not_repeated_to_the_next_process(bench: MasterBench) -> None:
    """The one before may have run the task at a gateway that was cut off all the time and has its end."""
    direct = bench.agent("a1", incarnation="i1")
    bench.submit(bench.framework("f1"), spec())
    assert direct.take(Launch)
    direct.hang_up()
    bench.restart()
    successor = bench.agent("a1", incarnation="i2")
    assert [launch.attempt for launch in successor.take(Launch)] == [2]


def test_a_launch_whose_end_is_reported_is_not_repeated(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    agent.hang_up()
    back = bench.agent("a1", tasks=[TaskReport(task_id, 1, TaskState.FINISHED, 0, 2)])
    assert not back.take(Launch)
    back.status(task_id, TaskState.FINISHED, 2)
    assert bench.state.tasks[task_id].state is TaskState.FINISHED


def test_where_an_agent_was_survives_the_masters_death(bench: MasterBench) -> None:
    relayed(bench, "g1")
    bench.restart()
    assert bench.state.agents["a1"].via == "g1"
