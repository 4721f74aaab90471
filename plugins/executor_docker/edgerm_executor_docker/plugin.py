"""The hook: one executor, `docker`."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Executor, Provider
from edgerm_executor_docker.config import DockerConfig


def _create(config: DockerConfig) -> Executor:
    from edgerm_executor_docker.executor import DockerExecutor

    return DockerExecutor(config)


@hookimpl
def executors() -> Iterable[Provider[Executor]]:
    """Return the executor `docker`."""
    return [
        Provider(
            name="docker",
            create=_create,
            config_type=DockerConfig,
            summary="runs containers with Docker or Podman",
        )
    ]
