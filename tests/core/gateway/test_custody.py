"""What the gateway answers for: nothing that counts is ever dropped, and there is a limit."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.codec import encode
from edgerm_core.gateway.custody import RECORD_BYTES, Custody, recover
from edgerm_core.gateway.records import (
    CustodyDropped,
    CustodyReleased,
    CustodyTaken,
    MasterKnown,
    Record,
    decode_record,
    encode_record,
)
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import StatusUpdate
from edgerm_core.tasks import TaskState

A1, A2 = AgentId("a1"), AgentId("a2")
T1 = TaskId(1)


def update(seq: int, state: TaskState = TaskState.RUNNING, task: int = 1, **fields: object) -> StatusUpdate:
    return StatusUpdate(TaskId(task), 1, seq, state, **fields)  # type: ignore[arg-type]


COST = len(encode(update(1))) + RECORD_BYTES


def seqs(custody: Custody, agent_id: AgentId = A1, task: int = 1) -> list[int]:
    return [held.update.seq for held in custody.of(agent_id).get((TaskId(task), 1), ())]


def test_what_is_taken_is_found_until_it_is_released() -> None:
    custody = Custody(10_000)
    held, records = custody.take(A1, update(1))
    assert records == [CustodyTaken(A1, update(1))]
    custody.take(A1, update(2))
    assert custody.find(A1, (T1, 1), 1) is held
    assert custody.find(A1, (T1, 1), 3) is None
    assert custody.find(A2, (T1, 1), 1) is None
    assert custody.bytes_held == 2 * COST
    assert custody.release(A1, (T1, 1), 1) == CustodyReleased(A1, T1, 1, 1)
    assert custody.release(A1, (T1, 1), 1) is None
    assert seqs(custody) == [2]
    custody.release(A1, (T1, 1), 9)
    assert (custody.agents(), custody.bytes_held) == ([], 0)


def test_where_room_gets_scarce_updates_go_that_a_later_one_has_overtaken() -> None:
    custody = Custody(3 * COST)
    custody.take(A2, update(1, task=7))
    custody.take(A1, update(1))
    custody.take(A1, update(2))
    held, records = custody.take(A1, update(3, TaskState.FINISHED))
    assert held is not None
    assert records == [CustodyDropped(A1, T1, 1, 1), CustodyTaken(A1, update(3, TaskState.FINISHED))]
    assert seqs(custody) == [2, 3]
    assert seqs(custody, A2, 7) == [1], "where a task stands never goes"


def test_an_update_that_overtakes_the_only_other_one_takes_its_place() -> None:
    custody = Custody(COST)
    custody.take(A1, update(1))
    held, records = custody.take(A1, update(2))
    assert held is not None
    assert records[-1] == CustodyDropped(A1, T1, 1, 1)
    assert seqs(custody) == [2]


def test_an_end_is_never_dropped_for_another() -> None:
    custody = Custody(COST)
    custody.take(A1, update(1, TaskState.FINISHED))
    held, records = custody.take(A1, update(1, TaskState.FINISHED, task=2))
    assert (held, records) == (None, [])
    assert seqs(custody) == [1]


def test_numbers_that_the_device_has_lost_go_and_an_end_stays() -> None:
    custody = Custody(10_000)
    for seq in range(1, 5):
        custody.take(A1, update(seq))
        custody.take(A2, update(seq, TaskState.FINISHED if seq == 4 else TaskState.RUNNING))
    assert custody.drop_lost(A1, (T1, 1), 2) == [CustodyDropped(A1, T1, 1, 3), CustodyDropped(A1, T1, 1, 4)]
    assert seqs(custody) == [1, 2]
    assert custody.find(A1, (T1, 1), 3) is None
    assert custody.drop_lost(A1, (T1, 1), 2) == []
    assert custody.drop_lost(A2, (T1, 1), 2) == []
    assert seqs(custody, A2) == [1, 2, 3, 4]
    # Where the task stands is not overtaken any more, and never goes.
    custody.take(A1, update(1, task=2))
    while custody._drop_overtaken() is not None:
        pass
    assert (seqs(custody), seqs(custody, A2), seqs(custody, task=2)) == ([2], [4], [1])


def test_another_masters_books_void_it() -> None:
    custody = Custody(10_000)
    assert custody.clear("m") == MasterKnown("m")
    custody.take(A1, update(1))
    custody.clear("m")
    assert custody.agents() == [A1]
    custody.clear("other")
    assert (custody.agents(), custody.bytes_held, custody.master_id) == ([], 0, "other")


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("take"),
            st.sampled_from([A1, A2]),
            st.integers(1, 3),
            st.sampled_from([TaskState.STARTING, TaskState.RUNNING, TaskState.FINISHED]),
            st.integers(0, 300),
        ),
        st.tuples(st.just("release"), st.sampled_from([A1, A2]), st.integers(1, 3), st.integers(1, 6)),
        st.tuples(st.just("lose"), st.sampled_from([A1, A2]), st.integers(1, 3), st.integers(0, 6)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2000))
def test_whatever_happens_it_is_bounded_written_down_and_loses_no_end(
    steps: list[tuple[Any, ...]], limit: int
) -> None:
    custody = Custody(limit)
    journal: list[Record] = []
    last: dict[tuple[AgentId, int], StatusUpdate] = {}
    promised: dict[tuple[AgentId, int], StatusUpdate] = {}
    for step in steps:
        if step[0] == "take":
            _, agent_id, task, state, size = step
            key = (agent_id, task)
            before = last.get(key)
            if before is not None and before.state.terminal:
                continue
            seq = before.seq + 1 if before else 1
            new = update(seq, state, task, result=bytes(size))
            held, records = custody.take(agent_id, new)
            journal += records
            if held is not None:
                last[key] = promised[key] = new
        elif step[0] == "lose":
            _, agent_id, task, seq = step
            key = (agent_id, task)
            journal += custody.drop_lost(agent_id, (TaskId(task), 1), seq)
            if key in last and not last[key].state.terminal and last[key].seq > seq:
                # It goes on from there, and what stands is the last that is left.
                last[key] = update(seq, task=task)
                left = custody.of(agent_id).get((TaskId(task), 1))
                if left:
                    promised[key] = left[-1].update
                else:
                    promised.pop(key, None)
        else:
            _, agent_id, task, seq = step
            record = custody.release(agent_id, (TaskId(task), 1), seq)
            if record is not None:
                journal.append(record)
            known = promised.get((agent_id, task))
            if known is not None and known.seq <= seq:
                del promised[agent_id, task]
        assert custody.bytes_held <= limit
        for (agent_id, task), newest in promised.items():
            assert custody.of(agent_id)[TaskId(task), 1][-1].update == newest
        for agent_id in custody.agents():
            for updates in custody.of(agent_id).values():
                numbers = [held.update.seq for held in updates]
                assert numbers == sorted(set(numbers))
    read = recover(limit, [decode_record(encode_record(record)) for record in journal])
    assert list(read.records()) == list(custody.records())
    assert read.bytes_held == custody.bytes_held
