"""The second framework: always some tasks waiting, never more than it wants."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
import wasmtime
from edgerm_demo.rival import LIMIT, WAITING, Rival
from edgerm_demo.study import HERE

from edgerm_core.client import connect_framework
from edgerm_core.messages import TaskUpdate
from edgerm_core.tasks import TaskSpec, TaskState

from .masters import ComputingMaster, update

PATIENCE_S = 30.0
ENDS = (TaskState.FINISHED, TaskState.FAILED, TaskState.FINISHED, TaskState.RUNNING)


class CrowdedMaster(ComputingMaster):
    """The first tasks end or run, all others wait.

    Attributes:
        crowded: as many wait as the rival wants.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crowded = anyio.Event()

    def run(self, spec: TaskSpec) -> TaskUpdate:
        self.specs.append(spec)
        if len(self.specs) == len(ENDS) + WAITING:
            self.crowded.set()
        number = len(self.specs) - 1
        return update(ENDS[number] if number < len(ENDS) else TaskState.PENDING)


def states(rival: Rival) -> list[TaskState]:
    return [task.state for task in rival.tasks]


def has_heard_of_all(rival: Rival) -> bool:
    expected = {TaskState.PENDING: WAITING, TaskState.RUNNING: 1}
    return rival.done == 2 and Counter(states(rival)) == expected


@pytest.mark.anyio
async def test_queue_is_filled_up_and_not_beyond() -> None:
    master = CrowdedMaster()
    with anyio.fail_after(PATIENCE_S):
        async with (
            connect_framework(master.url, plugins=master.plugins, insecure=True) as framework,
            anyio.create_task_group() as group,
        ):
            rival = Rival(framework)
            group.start_soon(rival.run)
            await master.crowded.wait()
            while not has_heard_of_all(rival):  # noqa: ASYNC110, tasks tell nobody
                await anyio.sleep(0.01)
            await anyio.sleep(0.25)  # Two more rounds, in which nothing must be submitted.
            found = states(rival)
            group.cancel_scope.cancel()
    assert found.count(TaskState.PENDING) == WAITING
    assert found.count(TaskState.RUNNING) == 1
    assert len(found) == WAITING + 1, "ended ones are forgotten"
    assert rival.done == 2, "the failed one does not count"
    assert len(master.specs) == len(ENDS) + WAITING
    assert {spec.implementations[0].args for spec in master.specs} == {(LIMIT,)}


@pytest.mark.parametrize(("limit", "primes"), [(3, 1), (10, 4), (100, 25), (1000, 168)])
def test_module_counts_primes(limit: int, primes: int) -> None:
    store = wasmtime.Store()
    module = wasmtime.Module(store.engine, bytes(wasmtime.wat2wasm((HERE / "busy.wat").read_text())))
    busy = wasmtime.Instance(store, module, []).exports(store)["busy"]
    assert isinstance(busy, wasmtime.Func)
    assert busy(store, limit) == primes
