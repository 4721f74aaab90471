"""The blocking face, from the thread of the test and from others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from edgerm_core.client import TaskFailed, blocking, process
from edgerm_core.errors import SpecError, TransportError
from edgerm_core.ids import TaskId
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskSpec, TaskState
from tests.core.client.conftest import WAIT_S, AutoMaster


def by_command(spec: TaskSpec) -> TaskUpdate | None:
    """`true` finishes, `false` fails, anything else runs until it is killed."""
    match spec.implementations[0].args:
        case ["true", *_]:
            return TaskUpdate(TaskId(0), 2, TaskState.FINISHED, result=b"yes")
        case ["false"]:
            return TaskUpdate(TaskId(0), 2, TaskState.FAILED, "exit-code", "exited with code 1")
    return None


def test_tasks_are_submitted_waited_for_and_killed() -> None:
    master = AutoMaster(by_command)
    with blocking.connect_framework(master.url, plugins=master.plugins, insecure=True) as framework:
        good, bad = framework.submit_many([process("true"), process("false")])
        assert good.result(timeout_s=WAIT_S) == b"yes"
        assert good.wait().state is TaskState.FINISHED
        with pytest.raises(TaskFailed, match="exited with code 1"):
            bad.result(timeout_s=WAIT_S)
        endless = framework.submit(process("sleep"), cpus=0.1)
        assert endless.wait_running(timeout_s=WAIT_S).agent_id == "a1"
        with pytest.raises(TimeoutError):
            endless.wait(timeout_s=0.02)
        assert [t.id for t in framework.tasks()] == [endless.id]
        endless.kill()
        assert [update.state for update in endless.changes()][-1] is TaskState.KILLED
        assert b"".join(good.logs()) == b"hello\nworld\n"
        framework.teardown()
    assert master.torn_down


def test_many_threads_may_share_a_framework() -> None:
    master = AutoMaster(by_command)
    with (
        blocking.connect_framework(master.url, plugins=master.plugins, insecure=True) as framework,
        ThreadPoolExecutor(8) as threads,
    ):
        results = threads.map(
            lambda n: framework.submit(process("true", str(n))).result(timeout_s=WAIT_S), range(100)
        )
        assert list(results) == [b"yes"] * 100


def test_errors_come_through_unwrapped() -> None:
    master = AutoMaster(by_command)
    master.refuse_connections = True
    with (
        pytest.raises(TransportError, match="no master answers at auto://here"),
        blocking.connect_framework(
            master.url, plugins=master.plugins, insecure=True, connect_timeout_s=0.1
        ),
    ):
        pass
    master.refuse_connections = False
    with blocking.connect_framework(master.url, plugins=master.plugins, insecure=True) as framework:
        with pytest.raises(SpecError):
            framework.submit(process("true"), name="no good")
        with pytest.raises(SpecError, match="offers=True"):
            next(iter(framework.offers()))


def test_an_operator_reads_a_log() -> None:
    master = AutoMaster(by_command)
    with blocking.connect_operator(master.url, plugins=master.plugins, insecure=True) as operator:
        assert b"".join(operator.logs(TaskId(1))) == b"hello\nworld\n"
