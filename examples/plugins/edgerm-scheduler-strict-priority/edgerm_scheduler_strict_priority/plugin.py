"""Registers the scheduler `strict-priority`.

Every daemon imports this module, and so do `edgerm --help` and others: keep it light.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider, Scheduler

from edgerm_scheduler_strict_priority.config import Config


def _create(config: Config) -> Scheduler:
    from edgerm_scheduler_strict_priority.scheduler import StrictPriorityScheduler

    return StrictPriorityScheduler(config)


@hookimpl
def schedulers() -> Iterable[Provider[Scheduler]]:
    """Provide `strict-priority`."""
    yield Provider("strict-priority", _create, Config, "the most important role first, with ageing")
