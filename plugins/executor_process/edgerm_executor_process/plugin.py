"""The hook: one executor, `process`."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Executor, Provider
from edgerm_executor_process.config import ProcessConfig


def _create(config: ProcessConfig) -> Executor:
    from edgerm_executor_process.executor import ProcessExecutor

    return ProcessExecutor(config)


@hookimpl
def executors() -> Iterable[Provider[Executor]]:
    """Return the executor `process`."""
    return [
        Provider(
            name="process",
            create=_create,
            config_type=ProcessConfig,
            summary="runs commands and programs, limited by cgroups",
        )
    ]
