"""Settled means: all there, nothing on its way, and a restart would change nothing."""

from __future__ import annotations

import pytest

from edgerm_core.ids import TaskId
from edgerm_core.testing.simulator.settled import check_settled, unsettled
from edgerm_core.testing.simulator.world import Failure

from .conftest import Begin, job


def test_a_cluster_with_a_service_settles(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    assert unsettled(cluster) == []
    check_settled(cluster)


def test_what_should_end_by_itself_is_waited_for(begin: Begin) -> None:
    cluster = begin(job(run_s=100.0))
    assert unsettled(cluster) == ["t1 (w0) is RUNNING (started) and should end by itself"]


def test_who_is_away_is_waited_for(begin: Begin) -> None:
    cluster = begin()
    cluster.agents["a1"].kill()
    cluster.frameworks["f1"].die()
    assert unsettled(cluster) == ["a1 is not registered", "f1 is not connected"]
    cluster.master.crash()
    assert unsettled(cluster) == ["the master is not there"]


def test_a_task_that_fits_nowhere_may_wait(begin: Begin) -> None:
    from edgerm_core.resources import ResourceRequest
    from edgerm_core.tasks import TaskSpec

    big = TaskSpec("big", job().implementations, ResourceRequest.parse("cpus:64"))
    assert unsettled(begin(big)) == []


def test_what_really_runs_must_be_what_is_known(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    host = cluster.agents["a1"].host
    host.destroy(host.live()[0])
    assert unsettled(cluster) == ["on a1 run [], it knows of [(1, 1, 0)]"]


def test_a_promised_task_that_is_not_on_the_books_is_found(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    cluster.checks.submitted("f1", "w9", (9,))
    with pytest.raises(Failure, match=r"w9 made \(9,\), and \[9\] are not on the books"):
        check_settled(cluster)


def test_a_restart_that_would_change_something_is_found(begin: Begin) -> None:
    cluster = begin(job(run_s=None))
    assert cluster.master.machine is not None
    task = cluster.master.machine.state.tasks[TaskId(1)]
    task.losses += 1
    cluster.master.machine.state.dirty["task", task.id] = None  # Not compared with the disk then.
    with pytest.raises(Failure, match=r"t1 would be different after a restart: \{'losses': 1\}"):
        check_settled(cluster)
