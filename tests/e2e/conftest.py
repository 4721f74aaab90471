"""Clusters for the tests in this directory; see `clusters`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from . import clusters
from .clusters import Cluster, running_cluster

KEEPERS_END_S = 20.0
"""Keepers stay for some seconds after their last task, in case their agent comes back."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An empty cluster: start what the test needs."""
    with running_cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """At the end no process and no control group of any cluster is there any more."""
    yield
    processes = clusters.wait_until_gone(
        lambda: [process for cluster in clusters.made for process in cluster.leftovers()], KEEPERS_END_S
    )
    groups = [group for cluster in clusters.made for group in cluster.cgroups()]
    assert (processes, groups) == ([], [])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a test's clusters with its failure."""
    report = yield
    if report.failed:
        used = [v for v in getattr(item, "funcargs", {}).values() if isinstance(v, Cluster)]
        report.sections += [("logs of the cluster", cluster.logs()) for cluster in used]
    return report
