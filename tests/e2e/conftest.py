"""Real processes: each test gets a directory and a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster, cluster_in, gone_after, left_behind

KEEPERS_END_S = 60.0
"""Keepers stay for some seconds after their last task, in case their agent comes back."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nothing runs yet."""
    with cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """At the end no process and no control group of any cluster is there any more."""
    yield
    assert gone_after(KEEPERS_END_S, left_behind) == {}
