"""Setting agents aside, so that a big task does not wait for ever while small ones fill every gap.

The rule: a task that has fitted nowhere for `reserve_after_s`, and is passed over right now (its
framework's turn had come, nothing fitted, and then somebody with a lesser claim was served, or its own
framework's younger task was), gets one agent set aside on which it would fit if nothing else ran there:
the one that lacks the least. Nothing else is placed or offered there. As soon as the task fits, it goes
there, before anybody else is served; if it fits elsewhere first, the agent is open again at once.

An agent is not set aside for ever, since its tasks may never end: after `reserve_for_s` it is opened,
and the next time the task is passed over the next best agent is tried, for twice as long. So if every
task ends some time, the big one runs some time. At most `max_reservations` agents are set aside at
once, one for each framework, in order of dominant share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from edgerm_core.feasibility import fits_totals
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.interfaces import AgentView
from edgerm_core.tasks import TaskSpec
from edgerm_scheduler_drf.account import quantities
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.scoring import ROOM_ONE, capability

MAX_DOUBLINGS: Final = 4
"""Times that the period doubles: a task that never gets room must not keep small ones out for ever."""


class Reservation(msgspec.Struct, frozen=True):
    """An agent that is set aside for a task, until a time."""

    task_id: TaskId
    framework_id: FrameworkId
    agent_id: AgentId
    until_s: float


class Reservations:
    """Keeps which agents are set aside for whom."""

    def __init__(self, config: DrfConfig) -> None:
        self._config = config
        self._by_task: dict[TaskId, Reservation] = {}
        self._tries: dict[TaskId, int] = {}

    def __iter__(self) -> Iterator[Reservation]:
        return iter(list(self._by_task.values()))

    def __len__(self) -> int:
        return len(self._by_task)

    @property
    def full(self) -> bool:
        """Whether no more agents may be set aside."""
        return len(self._by_task) >= self._config.max_reservations

    def of_task(self, task_id: TaskId) -> Reservation | None:
        """Return the task's reservation."""
        return self._by_task.get(task_id)

    def has_framework(self, framework_id: FrameworkId) -> bool:
        """Return whether an agent is set aside for the framework."""
        return any(r.framework_id == framework_id for r in self._by_task.values())

    def is_due(self, blocked_since: float | None, now: float) -> bool:
        """Return whether somebody who has fitted nowhere since then has waited long enough."""
        return blocked_since is not None and now - blocked_since >= self._config.reserve_after_s

    def make(
        self,
        task_id: TaskId,
        framework_id: FrameworkId,
        spec: TaskSpec,
        agents: Mapping[AgentId, AgentView],
        now: float,
    ) -> Reservation | None:
        """Set an agent aside; None if the task would not even fit on an empty one."""
        taken = {reservation.agent_id for reservation in self._by_task.values()}
        choices = sorted(
            (_lack(spec, agent), capability(agent.totals), agent_id)
            for agent_id, agent in agents.items()
            if agent_id not in taken and fits_totals(spec, agent)
        )
        if not choices:
            return None
        tries = self._tries.get(task_id, 0)
        self._tries[task_id] = tries + 1
        reservation = Reservation(
            task_id,
            framework_id,
            choices[tries % len(choices)][2],
            now + self._config.reserve_for_s * 2 ** min(tries, MAX_DOUBLINGS),
        )
        self._by_task[task_id] = reservation
        return reservation

    def release(self, task_id: TaskId) -> None:
        """Open the agent again."""
        del self._by_task[task_id]

    def forget(self, task_id: TaskId) -> None:
        """The task does not wait any more."""
        self._tries.pop(task_id, None)


def _lack(spec: TaskSpec, agent: AgentView) -> int:
    """Return the largest part of a need that is not free, 0 to `ROOM_ONE`."""
    free = quantities(agent.free, agent.devices)
    return max(
        (
            max(0, milli - free.get(name, 0)) * ROOM_ONE // milli
            for name, milli in spec.resources.fair_quantities().items()
        ),
        default=0,
    )
