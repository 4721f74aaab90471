"""The same seed strikes the same victims; no victim is struck twice at once, and all is over in time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.e2e.chaos.plan import FAULTS, make_plan
from tests.e2e.chaos.workload import KINDS, make_job

NAMES = (["a1", "a2"], ["f", "g"], ["f"])


def test_the_same_seed_makes_the_same_plan_and_the_same_jobs() -> None:
    assert make_plan(7, 60.0, *NAMES) == make_plan(7, 60.0, *NAMES)
    assert make_plan(7, 60.0, *NAMES) != make_plan(8, 60.0, *NAMES)
    jobs = [[make_job(7, "f", number) for number in range(50)] for _ in range(2)]
    described = [[(job.key, job.kind, job.kill_after_s, job.expected) for job in each] for each in jobs]
    assert described[0] == described[1]


@pytest.mark.parametrize("seed", range(20))
def test_faults_of_one_victim_follow_each_other_and_are_over_in_time(seed: int) -> None:
    for lane in make_plan(seed, 60.0, *NAMES):
        assert all(fault.at_s + fault.for_s <= 60.0 for fault in lane)
        for before, after in pairwise(lane):
            assert before.at_s + before.for_s <= after.at_s


def test_every_kind_of_fault_and_of_job_comes_about() -> None:
    kinds = {fault.kind for lane in make_plan(1, 10_000.0, *NAMES) for fault in lane}
    assert kinds == {kind for kinds in FAULTS.values() for kind in kinds}
    assert {make_job(1, "f", number).kind for number in range(1000)} == set(KINDS)
