"""The scheduler `drf`: weighted Dominant Resource Fairness."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider, Scheduler
from edgerm_scheduler_drf.config import DrfConfig


def _create(config: DrfConfig) -> Scheduler:
    from edgerm_scheduler_drf.scheduler import DrfScheduler

    return DrfScheduler(config)


@hookimpl
def schedulers() -> Iterable[Provider[Scheduler]]:
    """Provide the scheduler `drf`."""
    return [
        Provider(
            name="drf",
            create=_create,
            config_type=DrfConfig,
            summary="weighted Dominant Resource Fairness over all resources and devices",
        )
    ]
