"""Runs that nobody knows of: their agent and their keeper were killed in the middle of their start.

They are found by their control groups. Where there are none, nobody finds them.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from edgerm_core.cgroups import Cgroups
from edgerm_core.resources import Resources
from edgerm_executor_process.cgroup_limits import plan_groups
from edgerm_executor_process.group import Group
from edgerm_executor_process.runs import KILL_ROUND_S, KILL_ROUNDS

log = logging.getLogger(__name__)

EVERY_CONTROLLER: Final = Resources.parse("cpus:1")
"""What a run must have asked for to be in a group of each controller."""


def end_strays(found: Cgroups, agent_group: str, known: Collection[str]) -> None:
    """Kill what runs in groups of this agent that have none of the known names, and remove them. Blocking.

    Parameters:
        found: what works here.
        agent_group: directory name that is this agent's alone.
        known: directory names of the runs that somebody knows.
    """
    places = {Path(parent, "edgerm", agent_group) for parent in found.parents.values()}
    names = {
        group.name for place in places if place.is_dir() for group in place.iterdir() if group.is_dir()
    }
    for name in sorted(names - set(known)):
        log.warning("ending %s: neither the agent nor a keeper has a record of having started it", name)
        plan = plan_groups(found, agent_group, name, EVERY_CONTROLLER, 1)
        _end(Group(msgspec.to_builtins(plan)))


def _end(group: Group) -> None:
    group.forbid_forks()
    group.unthrottle()
    for _ in range(KILL_ROUNDS):
        pids = group.pids()
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(KILL_ROUND_S)
    group.remove()
