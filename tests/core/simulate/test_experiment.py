from __future__ import annotations

import logging
from typing import Any

import pytest

from edgerm_core.errors import ConfigError, EdgermError, PluginError
from edgerm_core.simulate import experiment as experiments
from edgerm_core.simulate.experiment import SAMPLES, Experiment

NODE = '[[agents]]\nname = "node"\nresources = "cpus:2"\n'
SERVICE = """
until_s = 50000
[[framework]]
name = "lab"
[[framework.submission]]
task = { name = "serve", resources = "cpus:1", implementation = [{ executor = "process" }]%s }
"""


def test_it_ends_when_every_task_has(run: Any) -> None:
    experiment, figures = run()
    assert figures["complete"]
    assert 100 < experiment.ended_s < 110
    assert 100 < figures["makespan_s"] <= experiment.ended_s


def test_services_run_until_the_end_and_samples_cover_all_of_it(run: Any) -> None:
    experiment, figures = run(NODE, SERVICE % "")
    assert experiment.ended_s == 50_000
    assert not figures["complete"]
    assert figures["makespan_s"] is None
    assert SAMPLES / 2 <= len(experiment.samples) <= SAMPLES
    times = [sample.at_s for sample in experiment.samples]
    steps = {after - before for before, after in zip([0.0, *times], times[:-1], strict=False)}
    assert len(steps) == 1
    assert times[-1] == 50_000
    assert all(0.49 < sample.agents[0].busy <= 0.51 for sample in experiment.samples[1:])
    assert all(sample.frameworks[0].placed == pytest.approx(1) for sample in experiment.samples[1:])


@pytest.mark.parametrize(
    ("policy", "runs", "returned", "lost"),
    [("replace = false", 1, 1, 0), ("lost_after_s = 60", 2, 0, 1)],
)
def test_an_outage_has_the_consequences_that_the_policy_says(
    run: Any, policy: str, runs: int, returned: int, lost: int
) -> None:
    """The node that is filled first is cut off; the other one has room."""
    cluster = (
        '[[agents]]\nname = "far"\nresources = "cpus:2"\nattributes = { good = true }\n'
        '[[agents]]\nname = "near"\nresources = "cpus:2"\n'
        '[[outage]]\nagents = ["far"]\nfrom_s = 1000\nfor_s = 3600\n'
    )
    workload = SERVICE % f', preferences = ["good==true"], disconnect = {{ {policy} }}'
    _, figures = run(cluster, workload.replace("task =", "at_s = 60\nrun = { duration_s = 9000 }\ntask ="))
    assert figures["complete"]
    assert figures["tasks"]["unreachable"] == 1
    got = figures["tasks"]
    assert (got["runs"], got["returned"], got["lost"]) == (runs, returned, lost)
    away = {row["name"]: row["away"] for row in figures["agents"]}
    assert away["far"] > 0.2
    assert away["near"] < 0.01


def test_an_agent_may_be_cut_off_twice_at_the_same_time(run: Any) -> None:
    outages = "".join(
        f'[[outage]]\nagents = ["node"]\nwhat = "{what}"\nfrom_s = {at}\nfor_s = 500\n'
        for what in ("link", "power")
        for at in (1000, 1300)
    )
    experiment, _ = run(NODE + outages, SERVICE % "")
    assert experiment.agents["node"].online
    assert experiment.agents["node"].host.boots == 2


def test_the_same_files_make_the_same_events_and_another_seed_others(run: Any) -> None:
    noisy = NODE + "count = 3\nlink = { loss = 0.2 }\n"
    digests = [run(f"seed = {seed}\n" + noisy)[0].world.story.digest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_scheduler_that_is_not_there_or_misconfigured_is_named(load: Any) -> None:
    with pytest.raises(PluginError, match="no scheduler 'astrology' is installed"):
        Experiment(load('[master]\nscheduler = "astrology"\n' + NODE))
    with pytest.raises(ConfigError, match=r"scheduler\.drf"):
        Experiment(load('[master]\nscheduler = "drf"\n[scheduler.drf]\nstrategy = "luck"\n' + NODE))


def test_too_much_to_simulate_is_an_error_and_logs_as_before(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "MAX_EVENTS", 100)
    level = logging.getLogger("edgerm_core").level
    with pytest.raises(EdgermError, match=r"simulated seconds: more than 100 events"):
        Experiment(load()).run()
    assert logging.getLogger("edgerm_core").level == level
