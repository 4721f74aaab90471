from __future__ import annotations

from typing import Any

import pytest

WORKLOAD = """
until_s = 20000
[[framework]]
name = "lab"
[[framework.submission]]
run = { %s }
[framework.submission.task]
name = "work"
instances = 100
resources = "cpus:1"
implementation = [{ executor = "%s" }]
%s
"""
CLUSTER = """
[[agents]]
name = "node"
resources = "cpus:100"
executors = ["process", "wasm"]
"""


def test_runs_take_as_long_as_the_workload_says(run: Any) -> None:
    experiment, figures = run(CLUSTER, WORKLOAD % ("duration_s = { uniform = [50, 60] }", "process", ""))
    host = experiment.agents["node"].busy_host
    took = [
        host.ended_at[each.key] - each.started_at - 0.2 for runs in host.history.values() for each in runs
    ]
    assert len(took) == 100
    assert 50 <= min(took) < 52 < 58 < max(took) <= 60.1
    seconds = sum(took) + 100 * 0.2
    assert figures["groups"][0]["busy"]["cpus"] == pytest.approx(
        seconds / 100 / figures["simulated_s"], abs=0.001
    )


def test_failures_come_at_their_rate_and_another_run_may_succeed(run: Any) -> None:
    _, figures = run(CLUSTER, WORKLOAD % ("duration_s = 5, failure = 0.3", "process", ""))
    assert 15 <= figures["tasks"]["failed"] <= 45
    again = "reschedule = { failures = 20 }"
    _, figures = run(CLUSTER, WORKLOAD % ("duration_s = 5, failure = 0.3", "process", again))
    assert figures["tasks"]["failed"] == 0
    assert 15 <= figures["tasks"]["tried_again"] <= 80


def test_results_are_as_large_as_the_workload_says(run: Any) -> None:
    _, small = run(CLUSTER, WORKLOAD % ("duration_s = 5", "process", ""))
    _, large = run(CLUSTER, WORKLOAD % ("duration_s = 5, result_bytes = 1000", "process", ""))
    grown = large["agents"][0]["payload_bytes_up"] - small["agents"][0]["payload_bytes_up"]
    assert 100_000 <= grown <= 102_000


def test_the_same_work_is_asked_for_under_another_scheduler(run: Any) -> None:
    took = []
    for scheduler in ("first-fit", "drf"):
        cluster = CLUSTER + f'[master]\nscheduler = "{scheduler}"\n'
        experiment, figures = run(cluster, WORKLOAD % ("duration_s = { exponential = 9 }", "wasm", ""))
        assert figures["scheduler"] == scheduler
        runs = [each for runs in experiment.agents["node"].host.history.values() for each in runs]
        took.append(sorted(each.behaviour.run_s for each in runs))
    assert took[0] == took[1]


def test_a_power_cut_ends_runs_and_they_are_placed_again(run: Any) -> None:
    outage = '[[outage]]\nagents = ["node"]\nwhat = "power"\nfrom_s = 100\nfor_s = 50\n'
    experiment, figures = run(CLUSTER + outage, WORKLOAD % ("duration_s = 500", "process", ""))
    assert figures["tasks"]["finished"] == 100
    assert figures["tasks"]["lost"] == 100
    assert figures["tasks"]["runs"] == 200
    assert experiment.agents["node"].host.boots == 2


def test_machines_fail_at_their_rate_and_are_repaired(run: Any) -> None:
    failing = CLUSTER + "count = 20\nfailures = { mtbf_s = 5000, repair_s = 100 }\n"
    workload = WORKLOAD % ("duration_s = 19000", "process", "reschedule = { losses = 100 }")
    experiment, figures = run(failing, workload)
    boots = sum(agent.host.boots - 1 for agent in experiment.agents.values())
    assert 40 <= boots <= 120  # 20 machines, 20,000 s, one failure in 5,100 s.
    assert not figures["complete"]
