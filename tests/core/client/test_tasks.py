"""The task a framework holds: what it takes in, and what waiting for it gives."""

from __future__ import annotations

import pytest

from edgerm_core.client import TaskFailed
from edgerm_core.errors import ConnectionClosed
from edgerm_core.messages import Done, KillTasks, TaskAcknowledge
from edgerm_core.tasks import TaskState
from tests.core.client.conftest import ScriptedMaster, connected, doing, submit_one, update

pytestmark = pytest.mark.anyio


async def test_older_and_repeated_versions_are_ignored(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        await peer.send(
            update(1, 5, TaskState.RUNNING),
            update(1, 4, TaskState.STARTING),
            update(1, 5, TaskState.UNREACHABLE),
        )
        await made.wait_running()
        assert made.update.version == 5
        assert made.state is TaskState.RUNNING


async def test_a_failed_task_raises_its_sentence(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 2)
        await peer.send(
            update(2, 3, TaskState.FAILED, reason="exit-code", message="exited with code 3", exit_code=3)
        )
        with pytest.raises(TaskFailed, match=r"task t2 \(echo\) FAILED \(exit-code\): exited with code 3"):
            await made.result()
        with pytest.raises(TaskFailed):
            await made.wait_running()
        assert (await made.wait()).exit_code == 3


async def test_changes_skip_what_a_slow_reader_missed_but_never_the_end(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        states = []
        async for change in made.changes():
            states.append(change.state)
            if change.state is TaskState.PENDING:
                # A flood while the reader is busy.
                flood = [update(1, version, TaskState.RUNNING) for version in range(1, 3000)]
                await peer.send(*flood, update(1, 3000, TaskState.FINISHED))
                await made.wait()
        assert states == [TaskState.PENDING, TaskState.FINISHED]


async def test_a_task_is_killed_once_and_an_ended_one_left_alone(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
        async with doing(lambda: made.kill(grace_s=0.5)) as call:
            request = await peer.expect(KillTasks)
            assert (request.task_ids, request.grace_s) == ((1,), 0.5)
            await peer.send(Done(request.request_id), update(1, 6, TaskState.KILLED))
        await call.value()
        await made.wait()
        await made.kill()
        await peer.expect(TaskAcknowledge)
        await peer.expect_nothing()


async def test_waiters_learn_that_this_program_closed_the_connection(master: ScriptedMaster) -> None:
    async with connected(master) as (framework, peer):
        made = await submit_one(framework, peer, 1)
    with pytest.raises(ConnectionClosed, match="closed by this program"):
        await made.wait()
