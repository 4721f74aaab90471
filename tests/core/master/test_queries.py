"""Listings: every kind, what narrows them down, and what wrong arguments are answered with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgerm_core.codec import encode
from edgerm_core.ids import BlobId
from edgerm_core.limits import MAX_MESSAGE_BYTES, QUERY_DEFAULT_ROWS, QUERY_MAX_ROWS
from edgerm_core.messages import Answer, Failed, KillTasks, Query, RefusalCode
from edgerm_core.resources import Device
from edgerm_core.tasks import TaskState
from edgerm_core.testing.masters import MasterBench, Peer, ScriptedAgent, spec


class Asker:
    """An operator that asks and takes the answer apart."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def rows(self, kind: str, **args: Any) -> list[dict[str, Any]]:
        answer = self.answer(kind, **args)
        json.dumps([{k: v for k, v in row.items() if k != "result"} for row in answer.rows])
        return list(answer.rows)

    def answer(self, kind: str, **args: Any) -> Answer:
        self.peer.send(Query(9, kind, args))
        failed = self.peer.take(Failed)
        assert not failed, failed
        (answer,) = self.peer.take(Answer)
        assert answer.request_id == 9
        return answer

    def failure(self, kind: str, **args: Any) -> Failed:
        self.peer.send(Query(9, kind, args))
        (failed,) = self.peer.take(Failed)
        assert self.peer.closed is None
        return failed


@pytest.fixture
def ask(bench: MasterBench) -> Asker:
    return Asker(bench.operator())


@pytest.fixture
def agent(bench: MasterBench) -> ScriptedAgent:
    return bench.agent(
        "a1",
        "cpus:4;mem:1000;ports:[31000-31001,31005-31005];zones:{a,b}",
        attributes={"os": "linux"},
        devices=(Device("cam0", "camera"),),
    )


def test_the_cluster_is_one_row_about_everything(
    bench: MasterBench, ask: Asker, agent: ScriptedAgent
) -> None:
    bench.store_blob(BlobId(b"\x01" * 32), 123)
    framework = bench.framework("f1")
    running, _ = bench.submit(framework, spec(), spec(resources="cpus:99;mem:1"))
    agent.status(running, TaskState.RUNNING, 1)
    bench.advance(2.5)
    (row,) = ask.rows("cluster")
    assert (row["master_id"], row["uptime_s"], row["scheduler"]) == ("bench", 2.5, "PlainScheduler")
    assert (row["agents"], row["agents_ready"], row["frameworks"]) == (1, 1, 1)
    assert row["tasks"] == {"RUNNING": 1, "PENDING": 1}
    assert row["totals"]["cpus"] == 4
    assert row["totals"]["device/camera"] == 1
    assert (row["blobs"], row["blob_bytes"]) == (1, 123)


def test_agents_are_rows_of_what_they_have_and_what_is_free(
    bench: MasterBench, ask: Asker, agent: ScriptedAgent
) -> None:
    bench.agent("a0").hang_up()
    bench.submit(bench.framework("f1"), spec(resources="cpus:1;mem:10;ports:1"))
    away, row = ask.rows("agents")
    assert (away["name"], away["state"], away["connected"]) == ("a0", "READY", False)
    assert (row["id"], row["state"], row["connected"], row["tasks"]) == ("a1", "READY", True, 1)
    assert row["totals"] == {
        "cpus": 4,
        "mem": 1000,
        "ports": ["31000-31001", "31005"],
        "zones": ["a", "b"],
        "devices": {"cam0": 1},
    }
    assert row["free"]["cpus"] == 3
    assert row["free"]["ports"] == ["31001", "31005"]
    assert row["attributes"] == {"os": "linux"}
    assert [e["name"] for e in row["executors"]] == ["test"]
    assert row["devices"] == [{"id": "cam0", "type": "camera", "slots": 1, "healthy": True}]


def test_frameworks_are_rows_with_their_dominant_share(
    bench: MasterBench, ask: Asker, agent: ScriptedAgent
) -> None:
    framework = bench.framework("f1", weight=2000, role="lab")
    bench.framework("f2")
    running, _ = bench.submit(framework, spec(resources="cpus:1;mem:500"), spec(resources="cpus:99;mem:1"))
    agent.status(running, TaskState.RUNNING, 1)
    row, idle = ask.rows("frameworks")
    assert (row["id"], row["role"], row["weight"], row["state"]) == ("f1", "lab", 2.0, "CONNECTED")
    assert (row["pending"], row["running"], row["live"], row["ended"]) == (1, 1, 2, 0)
    assert (row["share"], row["dominant"]) == (0.5, "mem")
    assert row["allocated"] == {"cpus": "1", "mem": "500"}
    assert (idle["share"], idle["dominant"]) == (0.0, "")


def test_tasks_are_rows_oldest_first(bench: MasterBench, ask: Asker, agent: ScriptedAgent) -> None:
    first, second = bench.submit(bench.framework("f1"), spec("one"), spec("two", "cpus:99;mem:1"))
    agent.status(first, TaskState.RUNNING, 1)
    agent.status(first, TaskState.FAILED, 2, reason="exit-code", exit_code=3, result=b"r")
    one, two = ask.rows("tasks")
    assert (one["id"], one["number"], one["name"], one["framework"]) == ("t1", first, "one", "f1")
    assert (one["state"], one["reason"], one["exit_code"], one["result"]) == (
        "FAILED",
        "exit-code",
        3,
        b"r",
    )
    assert (one["agent"], one["attempt"], one["executor"], one["desired"]) == ("a1", 1, "test", "stop")
    assert one["resources"] == {"cpus": 1, "mem": 10}
    assert (two["number"], two["state"], two["agent"], two["executor"], two["desired"]) == (
        second,
        "PENDING",
        "",
        "",
        "run",
    )


def test_tasks_can_be_narrowed_down(bench: MasterBench, ask: Asker) -> None:
    first, second = bench.framework("f1"), bench.framework("f2")
    bench.submit(first, spec("one"), spec("two"))
    ended, _ = bench.submit(second, spec("two"), spec("three"))
    second.send(KillTasks(1, (ended,)))

    def names(**args: Any) -> list[str]:
        return [row["name"] + row["id"] for row in ask.rows("tasks", **args)]

    assert names(framework="f1") == ["onet1", "twot2"]
    assert names(name="two") == ["twot2", "twot3"]
    assert names(states=["killed"]) == ["twot3"]
    assert names(states=["KILLED", "PENDING"], framework="f2") == ["twot3", "threet4"]
    assert names(ended=False) == ["onet1", "twot2", "threet4"]
    assert names(newest=True, limit=2) == ["threet4", "twot3"]
    assert names(limit=1) == ["onet1"]
    assert names(name="none of that name") == []


def test_the_total_counts_also_what_the_limit_left_out(bench: MasterBench, ask: Asker) -> None:
    framework = bench.framework("f1")
    bench.framework("f2")
    bench.submit(framework, spec(instances=5))
    for kind, total in (("tasks", 5), ("frameworks", 2)):
        answer = ask.answer(kind, limit=1)
        assert (len(answer.rows), answer.total) == (1, total)


def test_without_a_limit_and_with_a_huge_one_rows_are_bounded(bench: MasterBench, ask: Asker) -> None:
    framework = bench.framework("f1")
    for batch in range(2):
        bench.submit(framework, spec(instances=QUERY_MAX_ROWS // 2 + 10), key=f"b{batch}")
    assert len(ask.answer("tasks").rows) == QUERY_DEFAULT_ROWS
    answer = ask.answer("tasks", limit=10**9)
    assert answer.total == QUERY_MAX_ROWS + 20
    assert len(encode(answer)) < MAX_MESSAGE_BYTES


def test_a_long_listing_comes_in_answers_that_fit_into_a_message(bench: MasterBench, ask: Asker) -> None:
    """Ten thousand rows were larger than a message, and the asker got none at all."""
    bench.submit(bench.framework("f1"), spec(instances=8_000))
    numbers: list[int] = []
    answers = 0
    while len(numbers) < 8_000:
        answer = ask.answer("tasks", limit=QUERY_MAX_ROWS, offset=len(numbers))
        assert len(encode(answer)) < MAX_MESSAGE_BYTES
        numbers += [row["number"] for row in answer.rows]
        answers += 1
    assert numbers == list(range(1, 8_001))
    assert answers < 10


def test_a_row_larger_than_an_answer_comes_alone(bench: MasterBench, ask: Asker, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgerm_core.master.queries.ANSWER_BYTES", 10)
    bench.submit(bench.framework("f1"), spec(instances=3))
    answer = ask.answer("tasks")
    assert (len(answer.rows), answer.total) == (1, 3)


def test_listings_can_be_paged(bench: MasterBench, ask: Asker) -> None:
    framework = bench.framework("f1")
    bench.framework("f2")
    bench.submit(framework, spec(instances=5))
    assert [row["id"] for row in ask.rows("tasks", offset=3, limit=10)] == ["t4", "t5"]
    assert [row["id"] for row in ask.rows("tasks", offset=1, limit=2, newest=True)] == ["t4", "t3"]
    assert [row["id"] for row in ask.rows("frameworks", offset=1)] == ["f2"]
    assert ask.rows("tasks", offset=99) == []


def test_a_story_is_told_by_id_by_number_and_by_unique_name(
    bench: MasterBench, ask: Asker, agent: ScriptedAgent
) -> None:
    (task_id,) = bench.submit(bench.framework("f1"), spec("nightly"))
    agent.run_to_end(task_id)
    expected = ["PENDING", "STAGING", "RUNNING", "FINISHED"]
    for wanted in ("t1", "1", 1, "nightly"):
        rows = ask.rows("story", task=wanted)
        assert [row["state"] for row in rows] == expected
    assert [row["source"] for row in rows] == ["framework", "master", "agent", "agent"]
    assert [row["attempt"] for row in rows] == [0, 1, 1, 1]
    assert [row["agent"] for row in rows] == ["", "a1", "a1", "a1"]


def test_explain_is_one_row(bench: MasterBench, ask: Asker) -> None:
    bench.submit(bench.framework("f1"), spec())
    (row,) = ask.rows("explain", task="t1")
    assert (row["task"], row["state"], row["summary"]) == ("t1", "PENDING", "no agent has registered yet")


@pytest.mark.parametrize(
    ("kind", "args", "code", "words"),
    [
        ("everything", {}, RefusalCode.NOT_FOUND, "unknown query 'everything': expected one of cluster, "),
        ("tasks", {"limit": "many"}, RefusalCode.MALFORMED, "query tasks: wrong arguments"),
        ("tasks", {"limit": -5}, RefusalCode.MALFORMED, "limit must be 1 to 10000, not -5"),
        ("agents", {"limit": -1}, RefusalCode.MALFORMED, "limit must be 1 to 10000, not -1"),
        ("tasks", {"offset": -1}, RefusalCode.MALFORMED, "offset must not be negative"),
        ("tasks", {"limit": [1]}, RefusalCode.MALFORMED, "query tasks: wrong arguments"),
        ("tasks", {"states": 5}, RefusalCode.MALFORMED, "query tasks: wrong arguments"),
        (
            "tasks",
            {"states": ["SLEEPING"]},
            RefusalCode.NOT_FOUND,
            "no task state SLEEPING: expected one of",
        ),
        ("tasks", {"framework": "nobody"}, RefusalCode.NOT_FOUND, "there is no framework 'nobody'"),
        ("tasks", {"framework": ["f1"]}, RefusalCode.NOT_FOUND, "there is no framework ['f1']"),
        ("story", {}, RefusalCode.MALFORMED, "query story: wrong arguments: expected `task`"),
        ("story", {"task": "t999"}, RefusalCode.NOT_FOUND, "there is no task 't999'"),
        ("explain", {"task": "no such name"}, RefusalCode.NOT_FOUND, "there is no task 'no such name'"),
        ("explain", {"task": {"id": 1}}, RefusalCode.NOT_FOUND, "there is no task"),
        ("story", {"task": "twin"}, RefusalCode.NOT_FOUND, "2 tasks are named 'twin': use an id (t1, t2)"),
    ],
)
def test_wrong_arguments_are_answered_with_a_sentence(
    bench: MasterBench, ask: Asker, kind: str, args: dict[str, Any], code: str, words: str
) -> None:
    """A negative limit cut rows off the end, as Python's slices do."""
    bench.submit(bench.framework("f1"), spec("twin"), spec("twin"))
    failed = ask.failure(kind, **args)
    assert failed.code == code
    assert words in failed.message
    assert ask.rows("cluster"), "the session goes on"
