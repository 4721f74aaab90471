"""Records to bytes and back: what is written, what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edgerm_core.agents import AgentState
from edgerm_core.errors import StoreError
from edgerm_core.frameworks import FrameworkState
from edgerm_core.ids import AgentId, BlobId
from edgerm_core.master import invariants, journal
from edgerm_core.master.machine import Machine
from edgerm_core.messages import Drain, Forget, KillTasks, TaskAcknowledge, TaskReport, Unsubscribe
from edgerm_core.tasks import DisconnectPolicy, File, Reason, ReschedulePolicy, TaskState
from edgerm_core.testing.masters import MasterBench, spec

Records = dict[str, dict[bytes, bytes]]


def eventful(bench: MasterBench) -> MasterBench:
    """Let there be tasks in many states, a ghost, a drained agent, frameworks coming and going."""
    first = bench.agent("a1")
    framework = bench.framework("f1", weight=2000, role="lab")
    running, failing, ending, given_up = bench.submit(
        framework,
        spec("running"),
        spec("failing", reschedule=ReschedulePolicy(failures=1, delay_s=600.0)),
        spec("ending"),
        spec("given-up", disconnect=DisconnectPolicy(lost_after_s=1.0)),
    )
    first.status(running, TaskState.RUNNING, 1)
    first.run_to_end(failing, ok=False)
    first.run_to_end(ending)
    first.status(given_up, TaskState.RUNNING, 1)
    framework.send(TaskAcknowledge((ending,)))
    second = bench.agent("a2")
    bench.live(40, second)
    blob = BlobId(b"\x09" * 32)
    bench.submit(framework, spec("blocked", files=(File("x", blob),)), spec("large", "cpus:99;mem:1"))
    operator = bench.operator()
    (killed,) = bench.submit(framework, spec("killed"))
    operator.send(KillTasks(1, (killed,), grace_s=2.5))
    operator.send(Drain(2, AgentId("a2")))
    leaving = bench.framework("leaving")
    bench.submit(leaving, spec("left"))
    leaving.send(Unsubscribe(3))
    return bench


def fresh(records: Records, bench: MasterBench) -> Machine:
    machine = Machine(bench.settings, bench.scheduler, "another", bench.now)
    machine.restore(records, bench.now)
    invariants.check(machine.state)
    return machine


def everything(machine: Machine) -> Records:
    """Return all that a machine would write if everything were new."""
    state = machine.state
    state.dirty.clear()
    for task_id in state.tasks:
        state.dirty["task", task_id] = None
        state.dirty["spec", task_id] = None
    for agent_id in state.agents:
        state.dirty["agent", agent_id] = None
    for framework_id in state.frameworks:
        state.dirty["framework", framework_id] = None
    state.dirty["meta", ""] = None
    records: Records = {}
    for write in journal.take_writes(state):
        assert write.value is not None
        records.setdefault(write.kind, {})[write.key] = write.value
    return records


def tables(records: Records) -> Records:
    return {kind: table for kind, table in records.items() if table}


def test_what_was_written_change_by_change_is_what_the_books_hold(bench: MasterBench) -> None:
    eventful(bench)
    written, whole = tables(bench.records), everything(bench.machine)
    for kind in ("task", "spec", "framework"):
        assert written[kind] == whole[kind]
    # An agent's `last_heard` changes with every heartbeat and is not worth a write.
    assert written["agent"].keys() == whole["agent"].keys()


def test_restoring_and_writing_again_gives_the_same_bytes(bench: MasterBench) -> None:
    eventful(bench)
    before = everything(bench.machine)
    after = everything(fresh(before, bench))
    assert after["spec"] == before["spec"]
    assert after["task"] == before["task"]
    assert after["framework"] == before["framework"]
    assert after["meta"] == before["meta"]


def test_everything_that_matters_is_there_again(bench: MasterBench) -> None:
    eventful(bench)
    old, new = bench.state, fresh(bench.records, bench).state
    assert new.master_id == "bench"
    assert (new.next_task_id, new.next_offer_id) == (old.next_task_id, old.next_offer_id)
    assert new.tasks.keys() == old.tasks.keys()
    for task_id, task in old.tasks.items():
        again = new.tasks[task_id]
        for name in (
            "state",
            "reason",
            "attempt",
            "agent_id",
            "kill_reason",
            "kill_grace_s",
            "story",
            "spec",
        ):
            assert getattr(again, name) == getattr(task, name), (task_id, name)
    assert {a.id: set(a.ghosts) for a in new.agents.values()} == {
        a.id: set(a.ghosts) for a in old.agents.values()
    }
    assert new.agents[AgentId("a2")].drain
    assert new.frameworks["f1"].keys == old.frameworks["f1"].keys  # type: ignore[index]
    assert list(new.ended_order) == sorted(old.ended_order)


def test_agents_recover_and_unreachable_ones_stay_so(bench: MasterBench) -> None:
    eventful(bench)
    state = fresh(bench.records, bench).state
    assert {a.id: a.state for a in state.agents.values()} == {
        "a1": AgentState.UNREACHABLE,
        "a2": AgentState.RECOVERING,
    }
    assert {f.id: f.state for f in state.frameworks.values()} == {"f1": FrameworkState.DISCONNECTED}


def test_what_is_forgotten_is_removed_from_the_store(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    agent.run_to_end(task_id)
    framework.send(Unsubscribe(1))
    bench.operator().send(Forget(2, AgentId("a1")))
    assert set(tables(bench.records)) == {"meta"}


def test_a_spec_is_written_once_and_its_task_with_every_change(bench: MasterBench) -> None:
    agent = bench.agent("a1")
    (task_id,) = bench.submit(bench.framework("f1"), spec())
    bench.records["spec"].clear()
    bench.records["task"].clear()
    agent.status(task_id, TaskState.RUNNING, 1)
    assert not bench.records["spec"]
    assert list(bench.records["task"]) == [task_id.to_bytes(8, "big")]


def test_keys_of_tasks_sort_by_number(bench: MasterBench) -> None:
    bench.submit(bench.framework("f1"), spec(instances=300))
    keys = sorted(bench.records["task"])
    assert [int.from_bytes(key, "big") for key in keys] == list(range(1, 301))


def test_an_empty_store_is_a_new_master_and_others_need_a_meta_record() -> None:
    assert journal.read_meta({}) is None
    assert journal.read_meta({"meta": {}, "task": {}}) is None
    with pytest.raises(StoreError, match="no meta record: restore it from a backup"):
        journal.read_meta({"task": {b"1": b"x"}})


def without(records: Records, kind: str, key: bytes | None = None) -> Records:
    copy = {name: dict(table) for name, table in records.items()}
    if key is None:
        copy[kind].clear()
    else:
        del copy[kind][key]
    return copy


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("spec", "task 1 has no spec record"),
        ("framework", "has no framework record"),
        ("agent", "is on an agent without a record"),
    ],
)
def test_a_record_that_is_missing_is_named(bench: MasterBench, missing: str, sentence: str) -> None:
    eventful(bench)
    with pytest.raises(StoreError, match=sentence):
        fresh(without(bench.records, missing), bench)


@pytest.mark.parametrize("kind", ["meta", "agent", "framework", "spec", "task"])
@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x90", b"\x93\xa1x\x01\x02"], ids=repr)
def test_a_damaged_record_is_refused_with_its_kind(bench: MasterBench, kind: str, damage: bytes) -> None:
    eventful(bench)
    records = {name: dict(table) for name, table in bench.records.items()}
    key = min(records[kind])
    records[kind][key] = damage
    with pytest.raises(StoreError, match=f"a {kind} record is damaged"):
        fresh(records, bench)


def test_a_value_that_no_state_has_is_damage(bench: MasterBench) -> None:
    bench.submit(bench.framework("f1"), spec())
    row: list[Any] = msgspec.msgpack.decode(bench.records["task"][(1).to_bytes(8, "big")])
    row[0] = 99
    bench.records["task"][(1).to_bytes(8, "big")] = msgspec.msgpack.encode(row)
    with pytest.raises(StoreError, match="task record is damaged"):
        fresh(bench.records, bench)


def test_the_next_events_find_the_restored_books_in_order(bench: MasterBench) -> None:
    eventful(bench)
    bench.restart()
    state = bench.state
    on_a1 = [t for t in state.tasks.values() if t.agent_id == "a1" and t.state.on_agent]
    assert [(t.spec.name, t.state) for t in on_a1] == [("running", TaskState.UNREACHABLE)]
    reports = [TaskReport(t.id, t.attempt, TaskState.RUNNING) for t in on_a1]
    agent = bench.agent("a1", tasks=reports)
    assert on_a1[0].reason == Reason.AGENT_RETURNED
    agent.status(on_a1[0].id, TaskState.FINISHED, 2)
    assert on_a1[0].state is TaskState.FINISHED
    bench.live(700, agent, every_s=5)
    failing = next(t for t in state.tasks.values() if t.spec.name == "failing")
    assert failing.attempt == 2, "its delay went on"


def test_a_restart_adds_nothing_to_the_story_of_a_task_that_waits(bench: MasterBench) -> None:
    """Each restart told once more that a blob is missing, and pushed out what had happened."""
    bench.submit(bench.framework("f1"), spec(files=(File("x", BlobId(b"\x09" * 32)),)))
    before = [entry.reason for entry in bench.state.tasks[1].story]
    for _ in range(3):
        bench.restart()
    assert [entry.reason for entry in bench.state.tasks[1].story] == before
