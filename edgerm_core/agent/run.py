"""One attempt of a task on this agent: where it stands, as a literal table.

An attempt has one run at a time; a restart in place is a further run of the same attempt. An attempt
that must be stopped keeps its phase and gets an `Ending`, which says what it will be reported as.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from edgerm_core.agent.events import RunId
from edgerm_core.agent.restart import RestartCount
from edgerm_core.agent.updates import Updates
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.lifecycle import check_transition
from edgerm_core.limits import STATUS_RESEND_BASE_S
from edgerm_core.messages import Launch
from edgerm_core.tasks import TaskState

Key = tuple[TaskId, int]
"""Task id and attempt."""


class Phase(enum.IntEnum):
    """Where an attempt stands on this agent."""

    WAITING = 1
    """An older attempt of the same task still has to end."""
    STARTING = 2
    """Its blobs are fetched, its files laid out, its executor asked."""
    RUNNING = 3
    DELAYED = 4
    """Between two runs, until the restart delay is over."""
    ENDED = 5
    """Kept until the master has acknowledged the end. Final."""


TRANSITIONS: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.WAITING: frozenset({Phase.STARTING, Phase.ENDED}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.DELAYED, Phase.ENDED}),
    Phase.RUNNING: frozenset({Phase.DELAYED, Phase.ENDED}),
    Phase.DELAYED: frozenset({Phase.STARTING, Phase.ENDED}),
    Phase.ENDED: frozenset(),
}


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """Why an attempt is being stopped, and what its end will be called.

    Attributes:
        state, reason, message: of the final status.
        report: whether there will be one; not for tasks of a master that has disowned this agent.
    """

    state: TaskState
    reason: str
    message: str = ""
    report: bool = True


class Run:
    """An attempt. Changed by `runs.Runs` alone.

    Attributes:
        restarts: restarts in place so far.
        handle: the executor's name for the current run; None before it has started.
        started_at: when the current run started, in seconds.
        restart_at: when a DELAYED one starts again.
        count: what it has used up of its restart policy.
        ending: set once it has to stop.
        stop_by: when the executor was told to have ended it at the latest.
        updates: what the master has to be told.
        resend_s: wait before the next resend of its updates.
    """

    __slots__ = (
        "count",
        "ending",
        "handle",
        "launch",
        "phase",
        "resend_s",
        "restart_at",
        "restarts",
        "started_at",
        "stop_by",
        "updates",
    )

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.phase = Phase.STARTING
        self.restarts = 0
        self.handle: TaskHandle | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.count = RestartCount()
        self.ending: Ending | None = None
        self.stop_by = 0.0
        self.updates = Updates()
        self.resend_s = STATUS_RESEND_BASE_S

    def __str__(self) -> str:
        return f"t{self.launch.task_id}.{self.launch.attempt}"

    @property
    def key(self) -> Key:
        """Task id and attempt."""
        return self.launch.task_id, self.launch.attempt

    @property
    def id(self) -> RunId:
        """Of the current run."""
        return RunId(self.launch.task_id, self.launch.attempt, self.restarts)

    @property
    def state(self) -> TaskState:
        """The task state to report for it."""
        if self.phase is Phase.ENDED:
            last = self.updates.waiting or self.updates.unacked[-1]
            return last.state
        if self.ending is not None and self.ending.state is TaskState.KILLED:
            return TaskState.KILLING
        if self.phase is Phase.RUNNING:
            return TaskState.RUNNING
        return TaskState.STAGING if self.phase is Phase.WAITING else TaskState.STARTING

    def enter(self, phase: Phase) -> None:
        """Go on to `phase`.

        Raises:
            TransitionError: if the table does not list the step: a bug in the agent.
        """
        check_transition(TRANSITIONS, self.phase, phase, str(self))
        self.phase = phase
