"""The master's shell: nothing is said before it is written, and each crash loses what it may lose."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator.master_node import CrashPoint

from .conftest import Begin, job


def test_what_a_framework_was_told_is_on_the_disk(begin: Begin) -> None:
    cluster = begin(job())
    assert cluster.frameworks["f1"].submissions["w0"].ids == (1,)
    assert len(cluster.master.disk.records["task"]) == 1


def test_a_disk_that_refuses_keeps_the_master_silent(begin: Begin) -> None:
    cluster = begin()
    cluster.master.disk.refuses = True
    cluster.frameworks["f1"].submit("w1", job("w1"))
    cluster.world.run_until(30.0)
    assert cluster.frameworks["f1"].submissions["w1"].ids is None
    cluster.master.disk.refuses = False
    cluster.world.run_until(35.0)
    assert cluster.frameworks["f1"].submissions["w1"].ids == (1,)


def test_a_disk_that_refuses_for_too_long_ends_the_process_and_its_supervisor_starts_another(
    begin: Begin,
) -> None:
    cluster = begin()
    cluster.master.disk.refuses = True
    cluster.frameworks["f1"].submit("w1", job("w1"))
    cluster.world.run_until(200.0)
    assert cluster.master.starts > 1


@pytest.mark.parametrize("point", ["now", "power", "before-commit", "after-commit", "half-sent"])
def test_a_submission_survives_a_crash_at_any_point(begin: Begin, point: CrashPoint) -> None:
    cluster = begin()
    master, framework = cluster.master, cluster.frameworks["f1"]
    framework.submit("w1", job("w1"))
    master.crash(point)
    cluster.world.run_until(20.0)
    master.crash()
    master.start()
    cluster.world.run_until(200.0)
    assert framework.submissions["w1"].ids == (1,)
    assert master.starts > 1


def test_an_orderly_end_writes_the_time(begin: Begin) -> None:
    cluster = begin()
    before = cluster.master.disk.records["meta"][b""]
    cluster.world.run_until(500.0)
    cluster.master.stop()
    assert cluster.master.machine is None
    assert cluster.master.disk.records["meta"][b""] != before
