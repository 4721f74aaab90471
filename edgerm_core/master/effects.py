"""What the master wants done: orders, to be carried out by the runner after the batch is durable.

The runner collects the effects of a batch, commits the writes of its `Commit` in one transaction,
and only then carries out the rest in order. So nothing leaves that a crash could make untrue.
"""

from __future__ import annotations

import msgspec

from edgerm_core.ids import SessionId
from edgerm_core.interfaces import Write
from edgerm_core.messages import AnyMessage


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send this to the peer; if it is gone, forget it."""

    session_id: SessionId
    message: AnyMessage


class CloseSession(msgspec.Struct, frozen=True, gc=False):
    """Tell the peer why (as a Refused) and end the connection."""

    session_id: SessionId
    code: str
    message: str


class Commit(msgspec.Struct, frozen=True, gc=False):
    """Make these durable before anything else of this batch happens."""

    writes: list[Write]


class Changed(msgspec.Struct, frozen=True, gc=False):
    """Tell the observers. `kind` is `task`, `agent` or `framework`."""

    kind: str
    row: dict[str, object]


class Report(msgspec.Struct, frozen=True, gc=False):
    """Something the operator should find in the log."""

    level: int
    text: str


Effect = Send | CloseSession | Commit | Changed | Report
