"""Engines for tests of the executor: one that stays for all tests, and new ones for those that end them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.plugins.executor_docker.engine import DockerEngine, PodmanEngine, running


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    """A Docker Engine with the images of `engine.py`; tests remove their containers themselves."""
    with running(DockerEngine) as engine:
        yield engine


@pytest.fixture(scope="session")
def podman() -> Iterator[PodmanEngine]:
    """Podman's service with the same images."""
    with running(PodmanEngine) as engine:
        yield engine


@pytest.fixture
def new_engine() -> Iterator[Callable[..., DockerEngine]]:
    """Call it with DockerEngine's parameters for an engine that this test may stop, kill and start."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(running(lambda: DockerEngine(**how)))
