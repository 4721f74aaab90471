"""Schedulers by name, and what a faulty one may do: raise, talk nonsense, give away what is not there."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from edgerm_core.config import Config, PluginsConfig
from edgerm_core.errors import PluginError
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot
from edgerm_core.plugins import Plugins, load_plugins

FALLBACK: Final = "first-fit"
"""Taken where the plan's scheduler is not installed."""

FAULTS: Final = ("raises", "nonsense", "overcommits")


class FaultyScheduler(Scheduler):
    """A scheduler with a bug that shows now and then.

    Parameters:
        sound: what it does when the bug does not show.
        fault: one of `FAULTS`.
        luck: when it shows.
    """

    def __init__(self, sound: Scheduler, fault: str, luck: random.Random) -> None:
        self._sound = sound
        self._fault = fault
        self._luck = luck

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        """See `Scheduler.schedule`."""
        if self._fault == "raises" and self._luck.random() < 0.15:
            raise ZeroDivisionError("a share of nothing")
        decisions = list(self._sound.schedule(snapshot))
        if self._fault == "raises" and self._luck.random() < 0.15:
            raise KeyError("after the work was done")
        if self._fault == "nonsense" and self._luck.random() < 0.3:
            decisions += [
                Placement(TaskId(self._luck.randint(1, 99)), AgentId("nowhere")),
                OfferProposal(FrameworkId("nobody"), AgentId("a1")),
                *decisions[:3],
            ]
            self._luck.shuffle(decisions)
            if self._luck.random() < 0.3:
                decisions.append(cast(Any, ("place", 1, "a1")))
        if self._fault == "overcommits" and self._luck.random() < 0.3:
            agents = sorted(snapshot.agents)
            for framework_id in sorted(snapshot.frameworks):
                for task in snapshot.frameworks[framework_id].pending:
                    if agents:
                        decisions.append(Placement(task.id, self._luck.choice(agents)))
        return decisions


_loaded: Plugins | None = None


def scheduler_factory(name: str) -> Callable[[], Scheduler]:
    """Return what makes the scheduler of that name, or `FALLBACK` where it is not installed."""
    global _loaded
    if _loaded is None:
        _loaded = load_plugins(Config(plugins=PluginsConfig()))
    plugins = _loaded
    try:
        plugins.provider("scheduler", name)
    except PluginError:
        name = FALLBACK
    return lambda: cast(Scheduler, plugins.create("scheduler", name))
