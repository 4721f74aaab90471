"""Runs on a simulated agent take the same steps as real ones."""

from __future__ import annotations

from typing import Any

import pytest

from edgerm_core.agent.execution import REPORT_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S
from edgerm_core.ids import BlobId
from edgerm_core.resources import ResourceRequest
from edgerm_core.tasks import Implementation, Reason, TaskSpec, TaskState
from edgerm_core.testing.simulator.executors import Behaviour

from .conftest import Begin

BLOB = BlobId(bytes(32))


def task(blob: BlobId | None = None, **behaviour: Any) -> TaskSpec:
    options = Behaviour(**behaviour).options()
    return TaskSpec(
        "w0",
        (Implementation("process", blob, options=options),),
        ResourceRequest.parse("cpus:1"),
    )


@pytest.mark.parametrize(
    ("behaviour", "state", "reason"),
    [
        ({"run_s": 1.0}, TaskState.FINISHED, Reason.EXITED),
        ({"run_s": 1.0, "end": "badly"}, TaskState.FAILED, Reason.EXIT_CODE),
        ({"run_s": 1.0, "end": "trap"}, TaskState.FAILED, Reason.TRAP),
        ({"start": "fails"}, TaskState.FAILED, Reason.LAUNCH_FAILED),
        ({"start": "spec"}, TaskState.ERROR, Reason.SPEC_INVALID),
    ],
)
def test_what_becomes_of_a_run(
    begin: Begin, behaviour: dict[str, Any], state: TaskState, reason: str
) -> None:
    told = begin(task(**behaviour)).frameworks["f1"].told[1]
    assert (told.state, told.reason) == (state, reason)


def test_a_start_that_hangs_is_given_up(begin: Begin) -> None:
    cluster = begin(task(start="hangs"), seconds=START_TIMEOUT_S)
    told = cluster.frameworks["f1"].told
    assert told[1].state is TaskState.STARTING
    cluster.world.run_until(START_TIMEOUT_S + 10.0)
    assert [update.state for update in told.values()] == [TaskState.FAILED]
    assert cluster.agents["a1"].host.live() == []


def test_a_long_start_tells_how_far_it_is(begin: Begin) -> None:
    told = begin(task(start_s=60.0)).frameworks["f1"].told[1]
    assert told.state is TaskState.STARTING
    assert told.message == "some of it is here"


def test_a_blob_has_to_come_first(begin: Begin) -> None:
    cluster = begin(task(BLOB, fetch_s=30.0, run_s=None))
    assert cluster.frameworks["f1"].told[1].reason == Reason.WAITING_BLOB
    cluster.master.store_blob(BLOB, 1)
    cluster.world.run_until(15.0)
    assert cluster.frameworks["f1"].told[1].reason == Reason.FETCHING
    cluster.world.run_until(60.0)
    assert cluster.frameworks["f1"].told[1].state is TaskState.RUNNING


def test_a_start_that_is_stopped_leaves_nothing(begin: Begin) -> None:
    cluster = begin(task(start_s=60.0))
    cluster.frameworks["f1"].kill("w0")
    cluster.world.run_until(12.0)
    assert cluster.frameworks["f1"].told[1].state is TaskState.KILLED
    assert cluster.agents["a1"].host.live() == []


def test_a_run_that_cannot_be_stopped_is_ended_in_the_end(begin: Begin) -> None:
    cluster = begin(task(run_s=None, deaf=True))
    cluster.frameworks["f1"].kill("w0")
    wait_s = 5.0 + STOP_TIMEOUT_S + REPORT_TIMEOUT_S
    cluster.world.run_until(cluster.world.now + wait_s - 1.0)
    assert cluster.agents["a1"].host.live()
    cluster.world.run_until(cluster.world.now + 2.0)
    assert cluster.agents["a1"].host.live() == []
    assert cluster.frameworks["f1"].told[1].state is TaskState.KILLED
