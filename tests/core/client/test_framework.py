"""The framework against a master that the test plays, message by message."""

from __future__ import annotations

import anyio
import pytest

from edgerm_core.client import TaskFailed, connect_framework, task
from edgerm_core.client.framework import EARLY_UPDATES, split_submission
from edgerm_core.codec import encode
from edgerm_core.errors import (
    ConfigError,
    ConnectionClosed,
    RefusedError,
    RequestFailed,
    SpecError,
    TransportError,
)
from edgerm_core.ids import TaskId
from edgerm_core.limits import MAX_SUBMIT_TASKS
from edgerm_core.messages import (
    Done,
    Failed,
    Reconcile,
    Reconciled,
    Refused,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    TaskAcknowledge,
    Unsubscribe,
)
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import HELLO, ScriptedMaster, connected, doing, submit_one, update

pytestmark = pytest.mark.anyio


async def test_a_task_is_submitted_followed_to_its_end_and_acknowledged(master: ScriptedMaster) -> None:
    async with connected(master, name="hello", weight=2.0, role="lab") as (framework, peer):
        assert framework.info.weight == 2000
        assert framework.info.role == "lab"
        made = await submit_one(framework, peer, 7)
        assert made.id == 7
        assert made.name == "echo"
        assert made.state is TaskState.PENDING
        await peer.send(update(7, 2, TaskState.RUNNING, agent_id="a1", attempt=1))
        assert (await made.wait_running()).agent_id == "a1"
        await peer.send(update(7, 3, TaskState.FINISHED, result=b"42", exit_code=0))
        assert await made.result() == b"42"
        assert (await peer.expect(TaskAcknowledge)).task_ids == (7,)


async def test_a_submit_cut_off_before_its_answer_is_sent_again_with_the_same_key(
    master: ScriptedMaster,
) -> None:
    async with connected(master) as (framework, peer), doing(lambda: framework.submit(HELLO)) as call:
        first = await peer.expect(Submit)
        await peer.drop()
        peer = await master.accept_framework(known=True)
        second = await peer.expect(Submit)
        assert second.keys == first.keys
        await peer.send(Submitted(second.request_id, ((TaskId(3),),)))
        # The first submit may have made the task long ago: its news went to the connection that was lost.
        asked = await peer.expect(Reconcile)
        assert asked.task_ids == (3,)
        await peer.send(update(3, 9, TaskState.FINISHED), Reconciled(asked.request_id))
        made = await call.value()
        assert made.state is TaskState.FINISHED


async def test_an_end_missed_during_an_outage_is_learned_by_reconciling(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 4)
        async with doing(made.wait) as call:
            await peer.drop()
            peer = await master.accept_framework(known=True)
            asked = await peer.expect(Reconcile)
            assert asked.task_ids == (4,)
            await peer.send(update(4, 8, TaskState.FAILED, exit_code=3), Reconciled(asked.request_id))
        assert (await call.value()).exit_code == 3


async def test_a_task_that_the_master_does_not_know_ends_as_gone_with_a_reason(
    master: ScriptedMaster,
) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 4)
        await peer.drop()
        peer = await master.accept_framework()
        asked = await peer.expect(Reconcile)
        await peer.send(Reconciled(asked.request_id, (TaskId(4),)))
        with pytest.raises(TaskFailed, match=r"unknown to the master.*no record of it"):
            await made.result()
        assert made.state is TaskState.GONE


async def test_news_that_come_before_submitted_are_not_lost(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer), doing(lambda: framework.submit(HELLO)) as call:
        request = await peer.expect(Submit)
        await peer.send(
            update(6, 4, TaskState.FINISHED, result=b"early"),
            Submitted(request.request_id, ((TaskId(6),),)),
        )
        made = await call.value()
        assert await made.result() == b"early"


async def test_a_flood_of_updates_of_unknown_tasks_is_bounded_and_asked_for(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer), doing(lambda: framework.submit(HELLO)) as call:
        request = await peer.expect(Submit)
        flood = [update(i, 1, TaskState.RUNNING) for i in range(1000, 1000 + EARLY_UPDATES)]
        await peer.send(update(5, 2, TaskState.FINISHED), *flood)
        await peer.send(Submitted(request.request_id, ((TaskId(5),),)))
        asked = await peer.expect(Reconcile)
        assert asked.task_ids == (5,)
        await peer.send(update(5, 2, TaskState.FINISHED), Reconciled(asked.request_id))
        assert (await call.value()).state is TaskState.FINISHED
        assert len(framework._early) <= EARLY_UPDATES


async def test_submit_many_splits_at_the_limits_and_keeps_the_order(master: ScriptedMaster) -> None:
    drafts = [task(HELLO, name=f"n{i}", env={"TEXT": "x" * 40_000}) for i in range(40)]
    async with (
        connected(master) as (framework, peer),
        doing(lambda: framework.submit_many(drafts)) as call,
    ):
        names: list[str] = []
        messages = 0
        while len(names) < len(drafts):
            request = await peer.expect(Submit)
            messages += 1
            first = len(names) + 1
            ids = tuple((TaskId(first + i),) for i in range(len(request.specs)))
            names += [spec.name for spec in request.specs]
            await peer.send(Submitted(request.request_id, ids))
        made = await call.value()
        assert messages == 2
        assert names == [f"n{i}" for i in range(40)]
        assert [(t.name, t.id) for t in made] == [(f"n{i}", i + 1) for i in range(40)]


async def test_instances_come_back_in_a_row(master: ScriptedMaster) -> None:
    draft = task(HELLO, instances=3)
    async with connected(master) as (framework, peer):
        async with doing(lambda: framework.submit_many([draft])) as call:
            request = await peer.expect(Submit)
            await peer.send(Submitted(request.request_id, ((TaskId(1), TaskId(2), TaskId(3)),)))
        assert [t.id for t in await call.value()] == [1, 2, 3]
        with pytest.raises(SpecError, match="use submit_many"):
            await framework.submit(draft)


def test_a_spec_too_large_for_any_message_is_refused_here() -> None:
    with pytest.raises(SpecError, match="does not fit into a message"):
        split_submission([("k", task(HELLO, env={"TEXT": "x" * 5000}))], 4096)


def test_many_instances_are_split_over_several_submits() -> None:
    pairs = [(f"k{i}", task(HELLO, instances=MAX_SUBMIT_TASKS)) for i in range(3)]
    assert [len(part) for part in split_submission(pairs, 1 << 20)] == [1, 1, 1]


def test_every_part_of_a_split_submission_fits() -> None:
    pairs = [(f"k{i}", task(HELLO, name=f"n{i}")) for i in range(1000)]
    parts = split_submission(pairs, 2000)
    assert [pair for part in parts for pair in part] == pairs
    for part in parts:
        specs = tuple(draft.spec for _, draft in part)
        assert len(encode(Submit(0, tuple(key for key, _ in part), specs))) <= 2000


async def test_a_users_key_asks_where_the_task_stands(master: ScriptedMaster) -> None:
    async with (
        connected(master) as (framework, peer),
        doing(lambda: framework.submit(HELLO, key="nightly-1")) as call,
    ):
        request = await peer.expect(Submit)
        assert request.keys == ("nightly-1",)
        await peer.send(Submitted(request.request_id, ((TaskId(2),),)))
        asked = await peer.expect(Reconcile)
        await peer.send(update(2, 7, TaskState.FINISHED), Reconciled(asked.request_id))
        assert (await call.value()).state is TaskState.FINISHED


async def test_a_wrong_spec_and_a_limit_are_told_and_the_session_goes_on(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        for code, error in (("spec", SpecError), ("limit", RequestFailed)):
            async with doing(lambda: framework.submit(HELLO)) as call:
                request = await peer.expect(Submit)
                await peer.send(Failed(request.request_id, code, "not like this"))
            with pytest.raises(error, match="not like this"):
                await call.value()
        await submit_one(framework, peer, 1)


async def test_a_refusal_reaches_every_waiter(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        async with doing(made.wait) as waiting, doing(lambda: framework.submit(HELLO)) as submitting:
            await peer.expect(Submit)
            await peer.send(Refused("session-replaced", "a newer session took over"))
        for call in (waiting, submitting):
            with pytest.raises(RefusedError, match="a newer session took over"):
                await call.value()
        with pytest.raises(RefusedError):
            await framework.submit(HELLO)


async def test_a_refusal_that_time_can_heal_leads_to_a_new_connection(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(Refused("shutdown", "the master stops"))
        peer = await master.accept_framework(known=True)
        asked = await peer.expect(Reconcile)
        await peer.send(update(1, 5, TaskState.FINISHED), Reconciled(asked.request_id))
        await made.wait()


async def test_a_refused_greeting_comes_out_unwrapped(master: ScriptedMaster) -> None:
    async def refuse() -> None:
        peer = await master.accept()
        await peer.expect(Subscribe)
        await peer.send(Refused("removed", "framework f1 was removed; use another id"))

    async with anyio.create_task_group() as group:
        group.start_soon(refuse)
        with pytest.raises(RefusedError, match="use another id") as caught:
            async with connect_framework(master.url, id="f1", plugins=master.plugins):
                pass
        assert caught.value.code == "removed"


async def test_an_exception_of_the_block_comes_out_unwrapped(master: ScriptedMaster) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(master.accept_framework)
        with pytest.raises(ZeroDivisionError):
            async with connect_framework(master.url, plugins=master.plugins):
                raise ZeroDivisionError


async def test_nobody_answers_names_the_url_and_what_to_check(master: ScriptedMaster) -> None:
    with pytest.raises(TransportError, match=r"memory://nobody within 0.2 s .*check the URL"):
        async with connect_framework("memory://nobody", connect_timeout_s=0.2, plugins=master.plugins):
            pass


async def test_a_master_off_this_machine_needs_insecure(master: ScriptedMaster) -> None:
    with pytest.raises(ConfigError, match="insecure=True"):
        async with connect_framework("ws://192.0.2.7:7070", plugins=master.plugins):
            pass


async def test_the_environment_names_the_master(
    master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGERM_MASTER", master.url)
    async with anyio.create_task_group() as group:
        group.start_soon(master.accept_framework)
        async with connect_framework(plugins=master.plugins) as framework:
            assert framework.session.url == master.url


async def test_the_caller_is_told_of_a_lost_connection(master: ScriptedMaster) -> None:
    heard: list[tuple[bool, str]] = []
    back = anyio.Event()

    def hear(up: bool, text: str) -> None:
        heard.append((up, text))
        if len(heard) == 3:
            back.set()

    async with connected(master, on_connection=hear) as (_, peer):
        await peer.drop()
        await master.accept_framework()
        await back.wait()
    assert [up for up, _ in heard] == [True, False, True]
    assert "trying again in" in heard[1][1]


async def test_tasks_of_an_earlier_run_are_taken_over(master: ScriptedMaster) -> None:
    async with connected(master, id="again") as (framework, peer):
        async with doing(framework.tasks) as call:
            asked = await peer.expect(Reconcile)
            assert asked.task_ids == ()
            await peer.send(
                update(3, 4, TaskState.RUNNING),
                update(8, 2, TaskState.PENDING),
                Reconciled(asked.request_id),
            )
        tasks = await call.value()
        assert [(t.id, t.state) for t in tasks] == [(3, TaskState.RUNNING), (8, TaskState.PENDING)]
        await peer.send(update(3, 5, TaskState.FINISHED))
        assert (await tasks[0].wait()).state is TaskState.FINISHED


async def test_a_cancelled_wait_harms_nothing(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        with anyio.move_on_after(0.02) as scope:
            await made.wait()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(framework.submit, HELLO)
            late = await peer.expect(Submit)
            group.cancel_scope.cancel()
        await peer.send(Submitted(late.request_id, ((TaskId(2),),)), update(1, 2, TaskState.FINISHED))
        await made.wait()
        await peer.expect(TaskAcknowledge)
        await submit_one(framework, peer, 3)


async def test_teardown_ends_the_session(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        async with doing(framework.teardown) as call:
            request = await peer.expect(Unsubscribe)
            await peer.send(Done(request.request_id))
        await call.value()
        with pytest.raises(ConnectionClosed, match="torn down"):
            await made.wait()


async def test_something_malformed_from_the_master_leads_to_a_new_connection(
    master: ScriptedMaster,
) -> None:
    async with connected(master) as (framework, peer):
        await peer._connection.send(b"\xff\xff")
        peer = await master.accept_framework()
        await submit_one(framework, peer, 1)


async def test_the_same_session_id_is_used_after_every_reconnect(master: ScriptedMaster) -> None:
    async with connected(master, id="gw-collector") as (_, peer):
        await peer.drop()
        peer = await master.accept()
        greeting = await peer.expect(Subscribe)
        assert greeting.info.id == "gw-collector"
        await peer.send(Subscribed(1, True))
