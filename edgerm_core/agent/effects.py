"""What the agent wants done: orders to the runner.

The runner carries out the effects of a whole batch of events: all records first, then the others in
order. Each order that takes time is answered by one event of a closed family, named here.
"""

from __future__ import annotations

import msgspec

from edgerm_core.agent.events import RunId
from edgerm_core.agent.records import Record
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.interfaces import TaskHandle
from edgerm_core.messages import AnyMessage, Launch


class _Effect(msgspec.Struct, frozen=True):
    """Base of all effects."""


class WriteRecord(_Effect, frozen=True):
    """Append to the journal before anything else of this batch happens."""

    record: Record


class Send(_Effect, frozen=True):
    """Send in the current session; if it has just ended, the message is lost and that is all right."""

    message: AnyMessage


class Connect(_Effect, frozen=True):
    """Dial the master with this index in the config. Answered by Connected or Disconnected."""

    session: SessionId
    master_index: int


class Disconnect(_Effect, frozen=True):
    """End the session, whatever is under way in it. Answered by Disconnected."""

    session: SessionId
    reason: str


class StartRun(_Effect, frozen=True):
    """Fetch what it needs, then start it.

    Answered by RunFetching (perhaps) and then RunStarted and RunEnded, or RunNotStarted, or
    RunCancelled after StopRun.
    """

    run: RunId
    launch: Launch


class RecoverRun(_Effect, frozen=True):
    """Take up a run of an earlier agent process.

    Answered by RunRecovered and RunEnded, or RunLost.
    """

    run: RunId
    launch: Launch
    handle: TaskHandle


class StopRun(_Effect, frozen=True):
    """Ask it to end, and end it after `grace_s` seconds. Answered by RunEnded or RunCancelled."""

    run: RunId
    grace_s: float


class ReleaseAttempt(_Effect, frozen=True):
    """No run of this attempt will follow: its files may go, its logs stay for a while."""

    task_id: TaskId
    attempt: int


class Stop(_Effect, frozen=True):
    """The master refused this agent for good: end the agent process with this sentence."""

    code: str
    message: str


Effect = WriteRecord | Send | Connect | Disconnect | StartRun | RecoverRun | StopRun | ReleaseAttempt | Stop
