"""Real processes: each test gets a directory and a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster, cluster_in


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nothing runs yet."""
    with cluster_in(tmp_path) as cluster:
        yield cluster
