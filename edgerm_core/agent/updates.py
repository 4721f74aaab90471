"""What the master still has to be told about one attempt.

The master takes update n of an attempt only after update n-1, so numbers have no gaps. An update gets
its number when it is about to be sent, and never changes afterwards. One that waits for its number
(the master is away, or has not acknowledged enough) is replaced by the next one: only where the task
stands now matters, and so at most `WINDOW` numbered updates and one waiting are kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from edgerm_core.ids import TaskId
from edgerm_core.limits import MAX_MESSAGE_TEXT, MAX_RESULT_BYTES
from edgerm_core.messages import StatusUpdate
from edgerm_core.tasks import ExitResult, TaskState
from edgerm_core.values import MAX_INTEGER

UNNUMBERED: Final = 1
"""Stands in an update's `seq` until it gets its own."""

MAX_REASON_CHARS: Final = 128
"""Longest machine-readable reason."""

WINDOW: Final = 3
"""Numbered updates of one attempt that may be unacknowledged: RUNNING, KILLING, KILLED."""


class Updates:
    """The updates of one attempt.

    Attributes:
        last_seq: the last number given; 0 before the first.
        unacked: numbered, not acknowledged, oldest first.
        waiting: the next one to be numbered.
    """

    __slots__ = ("last_seq", "unacked", "waiting")

    def __init__(
        self,
        last_seq: int = 0,
        unacked: tuple[StatusUpdate, ...] = (),
        waiting: StatusUpdate | None = None,
    ) -> None:
        self.last_seq = last_seq
        self.unacked = list(unacked)
        self.waiting = waiting

    @property
    def settled(self) -> bool:
        """Whether the master has acknowledged everything."""
        return not self.unacked and self.waiting is None

    def report(self, update: StatusUpdate) -> None:
        """Take `update`, replacing one that waits. A final one is never replaced."""
        assert self.waiting is None or not self.waiting.state.terminal, "nothing follows an end"
        self.waiting = update

    def number(self) -> StatusUpdate | None:
        """Give the waiting update its number and return it, to be sent now; None if it must wait."""
        if self.waiting is None or len(self.unacked) >= WINDOW:
            return None
        self.last_seq += 1
        update = msgspec.structs.replace(self.waiting, seq=self.last_seq)
        self.waiting = None
        self.unacked.append(update)
        return update

    def acknowledge(self, seq: int) -> bool:
        """Forget updates up to `seq`; return whether there were any. Idempotent."""
        before = len(self.unacked)
        self.unacked = [update for update in self.unacked if update.seq > seq]
        return len(self.unacked) != before


def make_update(
    task_id: TaskId,
    attempt: int,
    state: TaskState,
    reason: str,
    message: str = "",
    *,
    restarts: int = 0,
    result: ExitResult | None = None,
    at: float = 0.0,
) -> StatusUpdate:
    """Return an update without a number.

    What an executor says is brought into the form that the wire allows: a frame that the master cannot
    read would cost the agent its session, and a record it cannot read back its memory.
    """
    exit_code = signal = value = None
    if result is not None:
        if result.exit_code is not None and -MAX_INTEGER <= result.exit_code <= MAX_INTEGER:
            exit_code = result.exit_code
        if result.signal is not None and 0 <= result.signal <= MAX_INTEGER:
            signal = result.signal
        if result.result is not None and len(result.result) > MAX_RESULT_BYTES:
            message = (
                f"result dropped: {len(result.result)} bytes, the limit is {MAX_RESULT_BYTES}. {message}"
            )
        else:
            value = result.result
    return StatusUpdate(
        task_id,
        attempt,
        UNNUMBERED,
        state,
        _text(reason, MAX_REASON_CHARS),
        _text(message, MAX_MESSAGE_TEXT),
        restarts,
        exit_code,
        signal,
        value,
        at,
    )


def _text(text: str, max_chars: int) -> str:
    """Return the text cut to length, without the lone surrogates that no encoding takes."""
    text = text[:max_chars]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
