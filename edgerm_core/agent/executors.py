"""The agent's executors: created once, asked every now and then whether they still work."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

import anyio

from edgerm_core.agents import Fingerprint
from edgerm_core.errors import ConfigError, PluginError
from edgerm_core.interfaces import DeviceDriver, Executor, TaskHandle
from edgerm_core.plugins import Plugins

log = logging.getLogger(__name__)

FINGERPRINT_EVERY_S: Final = 30.0
"""How often executors are asked."""

FINGERPRINT_SICK_EVERY_S: Final = 5.0
"""How often while one of them does not work: what it needs may be back."""

FINGERPRINT_TIMEOUT_S: Final = 10.0
"""An executor that does not answer by then does not work."""

SWEEP_TIMEOUT_S: Final = 30.0
"""For ending runs that nobody knows of, before the agent begins."""

CLOSE_TIMEOUT_S: Final = 30.0
"""For ending what cannot outlive the agent process."""


def create_executors(plugins: Plugins, wanted: tuple[str, ...] | None) -> dict[str, Executor]:
    """Create the executors the config wants (None: all installed); broken ones are named and left out."""
    executors: dict[str, Executor] = {}
    for name in wanted if wanted is not None else plugins.names("executor"):
        try:
            executors[name] = plugins.create("executor", name)
        except (PluginError, ConfigError) as error:
            log.error("executor %s is left out: %s", name, error)
    if not executors:
        log.warning("no executor works on this agent: it can run nothing; see `edgerm plugins`")
    return executors


def create_drivers(plugins: Plugins) -> dict[str, DeviceDriver]:
    """Create the device drivers that have a config section; broken ones are named and left out."""
    drivers: dict[str, DeviceDriver] = {}
    for name in plugins.config.device_driver:
        try:
            drivers[name] = plugins.create("device_driver", name)
        except (PluginError, ConfigError) as error:
            log.error("device driver %s is left out: %s", name, error)
    return drivers


async def fingerprints(executors: Mapping[str, Executor]) -> tuple[Fingerprint, ...]:
    """Ask all executors, one after the other. Never raises: one that does not answer is unhealthy."""
    return tuple([await _fingerprint(name, executor) for name, executor in executors.items()])


async def _fingerprint(name: str, executor: Executor) -> Fingerprint:
    try:
        with anyio.fail_after(FINGERPRINT_TIMEOUT_S):
            found = await executor.fingerprint()
        if not isinstance(found, Fingerprint) or found.name != name:
            what = type(found).__name__
            raise TypeError(f"it returned {what}, expected its own Fingerprint")
        return found
    except TimeoutError:
        problem = f"executor {name} did not answer within {FINGERPRINT_TIMEOUT_S:.0f} s"
    except Exception as error:
        problem = f"executor {name} failed: {type(error).__name__}: {error}"
    return Fingerprint(name, healthy=False, problem=problem)


async def sweep_executors(executors: Mapping[str, Executor], kept: Iterable[TaskHandle]) -> None:
    """Let each executor end what an earlier agent process started and nobody knows of. Never raises."""
    handles = list(kept)
    for name, executor in executors.items():
        try:
            with anyio.move_on_after(SWEEP_TIMEOUT_S) as scope:
                await executor.sweep([handle for handle in handles if handle.executor == name])
            if scope.cancelled_caught:
                log.error("executor %s did not look through its old runs in time", name)
        except Exception:
            log.exception("executor %s failed to look through its old runs", name)


async def close_executors(executors: Mapping[str, Executor]) -> None:
    """Close all. Never raises."""
    for name, executor in executors.items():
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT_S) as scope:
                await executor.close()
            if scope.cancelled_caught:
                log.error("executor %s did not close in time", name)
        except Exception:
            log.exception("executor %s failed to close", name)
