"""Small scenarios, written as their users would write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.simulate.experiment import Experiment
from edgerm_core.simulate.report import report
from edgerm_core.simulate.scenario import Scenario, load_scenario

CLUSTER = """
[[agents]]
name = "node"
count = 2
resources = "cpus:2;mem:1GiB"
"""
WORKLOAD = """
until_s = 3600
[[framework]]
name = "lab"
[[framework.submission]]
task = { name = "work", instances = 3, resources = "cpus:1", implementation = [{ executor = "process" }] }
run = { duration_s = 100 }
"""

Load = Callable[..., Scenario]
Run = Callable[..., tuple[Experiment, dict[str, Any]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Read the two files with these texts."""

    def read(cluster: str = CLUSTER, workload: str = WORKLOAD) -> Scenario:
        paths = tmp_path / "cluster.toml", tmp_path / "workload.toml"
        for path, text in zip(paths, (cluster, workload), strict=True):
            path.write_text(text, encoding="utf-8")
        return load_scenario(*paths)

    return read


@pytest.fixture
def run(load: Load) -> Run:
    """Run the two files with these texts; return the experiment and its figures."""

    def through(cluster: str = CLUSTER, workload: str = WORKLOAD) -> tuple[Experiment, dict[str, Any]]:
        experiment = Experiment(load(cluster, workload))
        experiment.run()
        return experiment, report(experiment)

    return through
