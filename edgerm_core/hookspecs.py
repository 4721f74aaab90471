"""Every extension point, in the order of a daemon's life. `docs/hooks.md` shows each with an example.

A plugin is a distribution with an entry point in the group `edgerm` that names a module (or object)
with functions of these names, marked with `@edgerm_core.hookspecs.hookimpl`. All results of a hook
are used; where two providers bear the same name, the plugin that is loaded later is refused.
Hooks return providers and not objects, so that what is not configured is never imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pluggy

if TYPE_CHECKING:
    import click

    from edgerm_core.interfaces import (
        DeviceDriver,
        Executor,
        Provider,
        Scheduler,
        StoreOpener,
        Transport,
    )
    from edgerm_core.observers import Observer

PROJECT: Final = "edgerm"
"""pluggy's project name, and the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- the command line, before any daemon ------------------------------------------------------


@hookspec
def commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return commands to add to `edgerm`.

    Called once for each run of the command line, before its arguments are read: import nothing heavy
    until a command runs. A name that core or an earlier plugin uses is refused.
    """


# --- both daemons, when they start ------------------------------------------------------------


@hookspec
def transports() -> Iterable[Provider[Transport]]:  # type: ignore[empty-body]
    """Return transports by name.

    Called when the master listens, and when an agent, a framework or the command line dials. A
    transport is created when a URL whose scheme is in its provider's `schemes` is first used.
    """


# --- the master, when it starts ---------------------------------------------------------------


@hookspec
def stores() -> Iterable[Provider[StoreOpener]]:  # type: ignore[empty-body]
    """Return stores by name. The one that `master.store` names is opened; core's is `sqlite`."""


@hookspec
def schedulers() -> Iterable[Provider[Scheduler]]:  # type: ignore[empty-body]
    """Return schedulers by name. The one that `master.scheduler` names is created."""


@hookspec
def observers() -> Iterable[Provider[Observer]]:  # type: ignore[empty-body]
    """Return observers of the master's changes by name: metrics, dashboards, webhooks.

    Created are those that have a section `[observer.<name>]` in the config.
    """


# --- the agent, when it starts ----------------------------------------------------------------


@hookspec
def executors() -> Iterable[Provider[Executor]]:  # type: ignore[empty-body]
    """Return executors by name. Created are those that `agent.executors` names; unset: all."""


@hookspec
def device_drivers() -> Iterable[Provider[DeviceDriver]]:  # type: ignore[empty-body]
    """Return device drivers by name. Created are those that have a section `[device_driver.<name>]`."""
