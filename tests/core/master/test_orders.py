"""Orders: sent when decided, repeated until confirmed, harmless when repeated."""

from __future__ import annotations

from edgerm_core.ids import BlobId
from edgerm_core.limits import ORDER_RESEND_S
from edgerm_core.messages import Heartbeat, Kill, KillTasks, Launch, TaskReport
from edgerm_core.resources import Resources
from edgerm_core.tasks import (
    DisconnectPolicy,
    File,
    Implementation,
    Reason,
    RestartPolicy,
    TaskState,
    Volume,
)
from edgerm_core.testing.masters import MasterBench, spec

BLOB = BlobId(b"\x07" * 32)


def test_a_launch_carries_what_the_spec_says_and_what_was_granted(bench: MasterBench) -> None:
    agent = bench.agent("a1", "cpus:4;mem:1000;ports:[31000-31009]")
    bench.store_blob(BLOB)
    wanted = spec(
        "job",
        "cpus:1.5;mem:20;ports:2",
        implementations=(Implementation("docker"), Implementation("test", args=("a", 1))),
        env={"A": "1"},
        files=(File("data", BLOB),),
        volumes=(Volume("out", "kept"),),
        restart=RestartPolicy("failure"),
        disconnect=DisconnectPolicy(stop_after_s=60),
        time_limit_s=90,
        kill_grace_s=3,
        instances=2,
    )
    ids = bench.submit(bench.framework("f1"), wanted)
    launches = agent.take(Launch)
    assert [(launch.task_id, launch.attempt, launch.index) for launch in launches] == [
        (ids[0], 1, 0),
        (ids[1], 1, 1),
    ]
    first, second = launches
    assert (first.framework_id, first.name) == ("f1", "job")
    assert first.implementation == Implementation("test", args=("a", 1)), "docker is not there"
    assert first.resources == Resources.parse("cpus:1.5;mem:20;ports:[31000-31001]")
    assert second.resources == Resources.parse("cpus:1.5;mem:20;ports:[31002-31003]")
    assert (first.env, first.files, first.volumes) == (wanted.env, wanted.files, wanted.volumes)
    assert (first.restart, first.stop_after_s) == (wanted.restart, 60)
    assert (first.time_limit_s, first.kill_grace_s) == (90, 3)


def test_a_launch_is_repeated_with_a_later_exchange_until_it_is_confirmed(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    (launch,) = agent.take(Launch)
    bench.advance(ORDER_RESEND_S - 0.5)
    agent.send(Heartbeat())
    assert not agent.take(Launch)
    bench.advance(0.5)
    agent.send(Heartbeat())
    assert agent.take(Launch) == [launch]
    agent.status(task_id, TaskState.STARTING, 1)
    bench.live(3 * ORDER_RESEND_S, agent)
    assert not agent.take(Launch)


def test_a_kill_takes_the_place_of_a_launch_that_was_not_confirmed(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    framework.send(KillTasks(1, (task_id,)))
    agent.take(Launch)
    agent.take(Kill)
    bench.live(ORDER_RESEND_S + 1, agent)
    assert not agent.take(Launch)
    assert [(k.task_id, k.attempt) for k in agent.take(Kill)] == [(task_id, 1)]


def test_a_kill_without_a_grace_of_its_own_takes_the_specs(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    first, second = bench.submit(framework, spec(kill_grace_s=7), spec(kill_grace_s=7))
    framework.send(KillTasks(1, (first,)))
    framework.send(KillTasks(2, (second,), grace_s=0.0))
    assert [(k.grace_s, k.reason) for k in agent.take(Kill)] == [
        (7, Reason.KILLED_BY_REQUEST),
        (0, Reason.KILLED_BY_REQUEST),
    ]


def test_orders_an_agent_missed_go_out_at_once_when_it_is_back(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    running, staged = bench.submit(framework, spec(), spec())
    agent.status(running, TaskState.RUNNING, 1)
    agent.hang_up()
    framework.send(KillTasks(1, (running,)))
    back = bench.agent("a1", tasks=[TaskReport(running, 1, TaskState.RUNNING)])
    assert [k.task_id for k in back.take(Kill)] == [running]
    assert [launch.task_id for launch in back.take(Launch)] == [staged]


def test_an_end_leaves_no_order_behind(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    framework.send(KillTasks(1, (task_id,)))
    agent.status(task_id, TaskState.KILLED, 1)
    agent.inbox.clear()
    bench.live(3 * ORDER_RESEND_S, agent)
    assert not agent.take(Kill)
    assert not agent.take(Launch)
    assert not bench.state.agents["a1"].unconfirmed
