from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.errors import ConfigError, EdgermError, SpecError
from edgerm_core.simulate.scenario import MAX_TASKS, Group, Spread, Submission, load_scenario

CLUSTER = '[[agents]]\nname = "n"\n'
TASK = 'task = { name = "t", implementation = [{ executor = "process" }] }\n'
WORKLOAD = '[[framework]]\nname = "f"\n[[framework.submission]]\n' + TASK


def test_all_that_is_left_out_has_a_default(load: Any) -> None:
    scenario = load(CLUSTER, WORKLOAD)
    assert scenario.cluster.agents[0].agents() == ["n"]
    (arrival,) = scenario.arrivals
    assert (arrival.at_s, arrival.framework, arrival.key) == (0.0, "f", "f-0-0")
    assert arrival.run.duration_s is None
    assert arrival.draft.spec.name == "t"


def test_agents_of_a_group_are_numbered_so_that_they_sort() -> None:
    names = Group("node", 12).agents()
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("node-01", "node-12")


def test_attributes_with_dots_are_read_as_in_a_config(load: Any) -> None:
    scenario = load(CLUSTER + 'attributes = { link.class = "constrained", floor = 2 }\n', WORKLOAD)
    assert scenario.cluster.agents[0].attributes == {"link.class": "constrained", "floor": 2}


@pytest.mark.parametrize(
    ("cluster", "workload", "said"),
    [
        ("agents = 3", WORKLOAD, "cluster.toml: agents: expected a list"),
        ("agents = []", WORKLOAD, "at least one [[agents]]"),
        ("[[agents]", WORKLOAD, "cluster.toml: not TOML"),
        (CLUSTER + "colour = 1\n", WORKLOAD, "agents[0]: unknown key `colour`"),
        (CLUSTER + "count = 0\n", WORKLOAD, "agents[0].count: expected"),
        (CLUSTER + 'resources = "cpus"\n', WORKLOAD, "agents[0]: 'cpus' is not a resource"),
        (CLUSTER + CLUSTER, WORKLOAD, "agents[1]: the name 'n' is taken by"),
        (CLUSTER + "link = { loss = 1.5 }\n", WORKLOAD, "link.loss: expected"),
        (
            CLUSTER + '[[outage]]\nagents = ["m"]\nfrom_s = 1\nfor_s = 1\n',
            WORKLOAD,
            "outage[0].agents: no agent or group 'm': expected '*', or some of n",
        ),
        (CLUSTER + "[master]\nheartbeat_s = 0\n", WORKLOAD, "master: heartbeat_s must be 0.05"),
        (CLUSTER, "framework = []", "at least one [[framework]]"),
        (CLUSTER, WORKLOAD.replace('"process"', '"no such"'), "framework[0].submission[0].task"),
        (CLUSTER, WORKLOAD + "run = { duration_s = { uniform = [3, 2] } }\n", "must not be larger"),
        (CLUSTER, WORKLOAD + "run = { duration_s = {} }\n", "exactly one of uniform"),
        (CLUSTER, WORKLOAD + WORKLOAD, "two frameworks are called 'f'"),
        (CLUSTER, WORKLOAD + "per_hour = 900000\nuntil_s = 80000\n", f"more than {MAX_TASKS} tasks"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(load: Any, cluster: str, workload: str, said: str) -> None:
    with pytest.raises(EdgermError) as caught:
        load(cluster, workload)
    assert isinstance(caught.value, ConfigError | SpecError)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load_scenario(tmp_path / "nothing.toml", tmp_path / "nothing.toml")


def test_even_arrivals_have_equal_distances_within_their_time() -> None:
    submission = Submission({}, per_hour=60, from_s=30, until_s=200)
    assert submission.times(10_000, random.Random(1)) == [30, 90, 150]
    assert submission.times(100, random.Random(1)) == [30, 90]


def test_poisson_arrivals_come_at_their_rate() -> None:
    submission = Submission({}, per_hour=60, arrivals="poisson")
    times = submission.times(360_000, random.Random(1))
    assert times == sorted(times)
    assert 5_700 < len(times) < 6_300
    assert submission.times(360_000, random.Random(1)) == times


def test_times_after_the_end_do_not_count() -> None:
    assert Submission({}, at_s=(50.0, 5.0, 100.0)).times(100, random.Random(1)) == [5.0, 50.0]


@pytest.mark.parametrize(
    ("spread", "low", "high"),
    [
        (Spread(uniform=(10.0, 20.0)), 14.5, 15.5),
        (Spread(exponential=30.0), 18.0, 23.0),  # The median of it is ln 2 times the mean.
        (Spread(lognormal=(40.0, 0.5)), 38.0, 42.0),
    ],
)
def test_spreads_have_the_middle_that_they_say(spread: Spread, low: float, high: float) -> None:
    luck = random.Random(3)
    drawn = sorted(spread.draw(luck) for _ in range(4_001))
    assert low < drawn[2_000] < high
