"""Why a task is where it is: the answer names the cause, and what happens next."""

from __future__ import annotations

from typing import Any

from edgerm_core.agents import Fingerprint
from edgerm_core.attributes import parse_constraint
from edgerm_core.ids import AgentId, BlobId, TaskId
from edgerm_core.interfaces import Snapshot, TaskView
from edgerm_core.master.explain import MAX_EXPLAINED_AGENTS, explain_task
from edgerm_core.master.timelimit import TookTooLong, unlimited
from edgerm_core.messages import Drain, KillTasks
from edgerm_core.tasks import DisconnectPolicy, File, Implementation, ReschedulePolicy, TaskState
from edgerm_core.testing.masters import MasterBench, spec


def explain(bench: MasterBench, task_id: TaskId) -> dict[str, Any]:
    return explain_task(bench.state, bench.state.tasks[task_id])


def verdicts(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(agent["agent"], agent["verdict"]) for agent in row["agents"]]


def test_without_agents_it_waits_for_one(bench: MasterBench) -> None:
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    row = explain(bench, task_id)
    assert row["summary"] == "no agent has registered yet"
    assert row["next"] == "placed when an agent joins that fits"


def test_what_fits_nowhere_is_said_at_once_with_every_reason(bench: MasterBench) -> None:
    bench.agent("small", "cpus:2;mem:100", attributes={"os": "linux"})
    bench.agent("other", "cpus:64;mem:9000", executors=(Fingerprint("docker"),))
    bench.agent("busy", "cpus:2;mem:100", attributes={"os": "linux"})
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec(resources="cpus:8;mem:50"))
    row = explain(bench, task_id)
    assert row["summary"].startswith("can never run on any agent registered now (3), even if idle: ")
    assert "cpus" in row["summary"]
    assert "(2 agents)" in row["summary"], "the most common reason comes with its count"
    assert row["next"] == "waits for an agent that fits; or kill it and submit it with other demands"
    assert verdicts(row) == [("busy", "never"), ("other", "never"), ("small", "never")]
    assert all(agent["obstacles"] for agent in row["agents"])


def test_a_constraint_nobody_meets_is_named(bench: MasterBench) -> None:
    bench.agent("a1", attributes={"zone": "a"})
    wanted = spec(constraints=(parse_constraint("zone==b"),))
    (task_id,) = bench.submit(bench.framework("f1"), wanted)
    row = explain(bench, task_id)
    assert "never" in row["summary"]
    assert "zone" in row["summary"]


def test_an_executor_nobody_has_is_named(bench: MasterBench) -> None:
    bench.agent("a1")
    wanted = spec(implementations=(Implementation("fpga"),))
    (task_id,) = bench.submit(bench.framework("f1"), wanted)
    assert "fpga" in explain(bench, task_id)["summary"]


def test_a_full_cluster_names_the_agents_that_could_run_it_later(bench: MasterBench) -> None:
    bench.agent("a1", "cpus:2;mem:100")
    bench.agent("tiny", "cpus:0.1;mem:1")
    framework = bench.framework("f1")
    _, waiting = bench.submit(framework, spec(resources="cpus:2;mem:10"), spec(resources="cpus:1;mem:10"))
    row = explain(bench, waiting)
    assert row["summary"].startswith("no agent has enough free: 1 agent could run it when others end")
    assert "closest: a1" in row["summary"]
    assert row["next"] == "placed when enough is given back there"
    assert verdicts(row) == [("a1", "full"), ("tiny", "never")]


def test_an_agent_that_runs_as_many_as_it_takes_is_named(bench: MasterBench) -> None:
    bench.agent("b1", max_tasks=1)
    _, waits = bench.submit(bench.framework("f1"), spec(resources=""), spec(resources=""))
    row = explain_task(bench.state, bench.state.tasks[waits])
    assert "could run it when others end" in row["summary"]
    assert row["agents"] == [
        {
            "agent": "b1",
            "verdict": "full",
            "obstacles": ["tasks: runs as many at once as it takes (its max_tasks)"],
        }
    ]


def test_agents_that_are_away_are_told_apart_from_those_that_never_fit(bench: MasterBench) -> None:
    bench.agent("gone").hang_up()
    bench.agent("drained")
    bench.operator().send(Drain(1, AgentId("drained")))
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    row = explain(bench, task_id)
    assert row["summary"] == "only agents that are away could run it (2 agents)"
    assert [agent["obstacles"] for agent in row["agents"]] == [
        ["the agent is draining"],
        ["the agent is not connected at the moment"],
    ]
    bench.advance(60)
    assert ["the agent is unreachable"] in [a["obstacles"] for a in explain(bench, task_id)["agents"]]


def test_a_task_that_fits_waits_for_its_turn(bench: MasterBench, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(bench.scheduler), "schedule", lambda self, snapshot: [])
    bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    row = explain(bench, task_id)
    assert row["summary"] == "fits 1 agent now and waits for its turn"
    assert row["next"] == "placed as soon as fair sharing allows"


def test_the_schedulers_own_words_are_passed_on_and_its_failure_too(
    bench: MasterBench, monkeypatch: Any
) -> None:
    (task_id,) = bench.submit(bench.framework("f1"), spec())

    def says(self: object, task: TaskView, snapshot: Snapshot) -> str:
        return f"t{task.id} is second in line of {len(snapshot.frameworks)}"

    def fails(self: object, task: TaskView, snapshot: Snapshot) -> str:
        raise KeyError("gone")

    monkeypatch.setattr(type(bench.scheduler), "explain", says)
    assert explain(bench, task_id)["policy"] == "t1 is second in line of 1"
    monkeypatch.setattr(type(bench.scheduler), "explain", fails)
    assert explain(bench, task_id)["policy"] == "the scheduler cannot explain it: KeyError: 'gone'"


def test_a_scheduler_that_fails_is_what_happens_next(bench: MasterBench, monkeypatch: Any) -> None:
    def fails(self: object, snapshot: Snapshot) -> Any:
        raise KeyError("gone")

    monkeypatch.setattr(type(bench.scheduler), "schedule", fails)
    bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    name = type(bench.scheduler).__name__
    assert explain(bench, task_id)["next"] == f"scheduler {name} failed: KeyError: 'gone'"


def test_a_scheduler_that_does_not_come_back_is_not_asked_again(bench: MasterBench) -> None:
    (task_id,) = bench.submit(bench.framework("f1"), spec())

    def break_off(function: object) -> Any:
        raise TookTooLong("it did not return within 10 s")

    bench.state.within = break_off
    said = "the scheduler cannot explain it: it did not return within 10 s"
    assert explain(bench, task_id)["policy"] == said
    bench.state.within = unlimited
    assert explain(bench, task_id)["policy"].endswith("it is not asked again")


def test_a_missing_blob_is_named(bench: MasterBench) -> None:
    blob = BlobId(b"\xab" * 32)
    (task_id,) = bench.submit(bench.framework("f1"), spec(files=(File("x", blob),)))
    row = explain(bench, task_id)
    assert row["summary"].startswith("waits for the framework to upload what it needs")
    assert blob.hex()[:12] in row["summary"]


def test_a_delay_says_how_long_and_why(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    policy = ReschedulePolicy(failures=1, delay_s=30)
    (task_id,) = bench.submit(bench.framework("f1"), spec(reschedule=policy))
    agent.run_to_end(task_id, ok=False)
    bench.live(10, agent)
    row = explain(bench, task_id)
    assert row["summary"] == "waits 20.0 s before its next attempt"
    assert row["next"].startswith("its last attempt: failed (exited")


def test_an_unreachable_agent_says_how_long_and_what_happens_next(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    policies = {
        "replaced": DisconnectPolicy(lost_after_s=100),
        "patient": DisconnectPolicy(lost_after_s=100, replace=False),
        "killed": DisconnectPolicy(lost_after_s=100),
    }
    ids = dict(
        zip(
            policies,
            bench.submit(framework, *(spec(n, disconnect=p) for n, p in policies.items())),
            strict=True,
        )
    )
    for task_id in ids.values():
        agent.status(task_id, TaskState.RUNNING, 1)
    bench.advance(35)
    bench.advance(40)
    framework.send(KillTasks(1, (ids["killed"],)))
    rows = {name: explain(bench, task_id) for name, task_id in ids.items()}
    assert (
        rows["replaced"]["summary"] == "its agent a1 has been silent for 75 s; whether it runs is not known"
    )
    assert rows["replaced"]["next"] == "placed elsewhere after 100 s (60 s from now)"
    assert rows["killed"]["next"] == "counts as killed after 100 s (60 s from now)"
    assert rows["patient"]["next"] == "waits for its agent, however long that takes"


def test_a_task_on_an_agent_says_where_and_how_far(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    assert explain(bench, task_id)["summary"] == "placed on a1, which has not confirmed it yet"
    agent.status(task_id, TaskState.STARTING, 1, reason="fetching", message="module, 2 MiB")
    assert explain(bench, task_id)["summary"] == "starting on a1 (fetching: module, 2 MiB)"
    agent.status(task_id, TaskState.RUNNING, 2)
    assert explain(bench, task_id)["summary"] == "runs on a1"
    framework.send(KillTasks(1, (task_id,)))
    assert explain(bench, task_id)["summary"] == "is being stopped on a1 (killed-by-request)"
    agent.status(task_id, TaskState.KILLED, 3, message="SIGTERM")
    assert explain(bench, task_id)["summary"] == "ended: KILLED (killed-by-request): SIGTERM"


def test_only_so_many_agents_are_listed_one_by_one(bench: MasterBench, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgerm_core.master.explain.MAX_EXPLAINED_AGENTS", 3)
    assert MAX_EXPLAINED_AGENTS == 200
    for index in range(5):
        bench.agent(f"a{index}", "cpus:1;mem:1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    row = explain(bench, task_id)
    assert len(row["agents"]) == 3
    assert "5 agents" in row["summary"]
