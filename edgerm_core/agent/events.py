"""What the agent is told: facts, in the past tense.

Session events carry the session's number and run events the run's id, so that news of something that
has since been replaced is recognised as such and ignored.
"""

from __future__ import annotations

import msgspec

from edgerm_core.agents import AgentInfo
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.messages import AnyMessage
from edgerm_core.tasks import ExitResult, TaskState


class RunId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One start of a task on this agent."""

    task_id: TaskId
    attempt: int
    restarts: int

    def __str__(self) -> str:
        return f"t{self.task_id}.{self.attempt}+{self.restarts}"


class _Event(msgspec.Struct, frozen=True):
    """Base of all events."""


class Began(_Event, frozen=True):
    """The agent process knows its records and its machine: go on with the runs, and dial. Comes once."""


class Ticked(_Event, frozen=True):
    """Time has passed: `Agent.next_deadline()` has come."""


class InventoryChanged(_Event, frozen=True):
    """Something the agent has is different now; `info` is all of it."""

    info: AgentInfo


# --- the session ------------------------------------------------------------------------------


class Connected(_Event, frozen=True):
    """The answer to Connect: somebody listens."""

    session: SessionId
    peer: str = ""


class Disconnected(_Event, frozen=True):
    """The answer to Connect (nobody listens) or to Disconnect, or the connection broke.

    `jitter` is a random number from 0 up to, but not including, 1.
    """

    session: SessionId
    problem: str
    jitter: float


class FrameReceived(_Event, frozen=True):
    """The master said something."""

    session: SessionId
    messages: list[AnyMessage]


class FrameSent(_Event, frozen=True):
    """Something has left for the master."""

    session: SessionId


# --- runs: the family that answers StartRun, RecoverRun and StopRun ----------------------------


class RunFetching(_Event, frozen=True):
    """The run cannot start yet: a blob has to come from the master first."""

    run: RunId


class RunProgress(_Event, frozen=True):
    """The executor is still starting it, and says how far it is."""

    run: RunId
    text: str


class RunStarted(_Event, frozen=True):
    """The executor started it."""

    run: RunId
    handle: TaskHandle


class RunRecovered(_Event, frozen=True):
    """It was started by an earlier agent process, and goes on or has left its exit status."""

    run: RunId
    handle: TaskHandle


class RunNotStarted(_Event, frozen=True):
    """It could not be started, and nothing of it is left.

    Attributes:
        state: FAILED, ERROR or DROPPED.
        recoverable: whether the restart policy applies.
    """

    run: RunId
    state: TaskState
    reason: str
    message: str
    recoverable: bool = False


class RunCancelled(_Event, frozen=True):
    """It was stopped before it started, and nothing of it is left."""

    run: RunId


class RunLost(_Event, frozen=True):
    """It was started by an earlier agent process, and nothing of it can be found."""

    run: RunId
    message: str


class RunEnded(_Event, frozen=True):
    """It ended, by itself or because it was stopped, and everything it held is free again."""

    run: RunId
    result: ExitResult


Event = (
    Began
    | Ticked
    | InventoryChanged
    | Connected
    | Disconnected
    | FrameReceived
    | FrameSent
    | RunFetching
    | RunProgress
    | RunStarted
    | RunRecovered
    | RunNotStarted
    | RunCancelled
    | RunLost
    | RunEnded
)
