"""What the master still has to be told about one attempt.

The master takes update n of an attempt only after update n-1, so numbers have no gaps. An update gets
its number when it is about to be sent, and never changes afterwards. One that waits for its number
(the master is away, or has not acknowledged enough) is replaced by the next one: only where the task
stands now matters, and so at most `WINDOW` numbered updates and one waiting are kept.
"""

from __future__ import annotations

import msgspec

from edgerm_core.messages import StatusUpdate

WINDOW = 2
"""Numbered updates of one attempt that may be unacknowledged: the short task's RUNNING and FINISHED."""


class Updates:
    """The updates of one attempt.

    Attributes:
        last_seq: the last number given; 0 before the first.
        unacked: numbered, not acknowledged, oldest first.
        waiting: the next one to be numbered; its seq is 0.
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
        assert update.seq == 0
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
