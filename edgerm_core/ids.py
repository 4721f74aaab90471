"""Identifiers: their types, their rules, their spelling.

Tasks are numbered by the master, because a small integer costs one to five bytes on a radio link,
sorts by age and keeps the store's writes sequential; people read and type it as `t17`. Agents and
frameworks name themselves, so that a registration that is sent twice registers once.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from edgerm_core.errors import SpecError

AgentId = NewType("AgentId", str)
"""Chosen by the agent, kept in its data directory; unique in the cluster."""

FrameworkId = NewType("FrameworkId", str)
"""Chosen by the framework; the same id after a reconnect means the same framework (failover)."""

TaskId = NewType("TaskId", int)
"""Given by the master, from 1 upwards, never reused."""

OfferId = NewType("OfferId", int)
"""Given by the master, from 1 upwards, never reused."""

BlobId = NewType("BlobId", bytes)
"""SHA-256 of the blob's content, 32 bytes."""

SessionId = NewType("SessionId", int)
"""One connection to the master, numbered by its runner; never reused while it runs."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROLE = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7}")


def check_name(value: str, what: str) -> str:
    """Return `value` if it may name `what` (an agent, a framework, a task).

    Raises:
        SpecError: if it is not 1 to 64 letters, digits, dots, dashes or underscores.
    """
    if not _NAME.fullmatch(value):
        raise SpecError(
            f"{what} {value[:80]!r} is not a name: use 1 to 64 letters, digits, '.', '_' or '-', "
            f"starting with a letter or digit"
        )
    return value


def check_role(value: str) -> str:
    """Return `value` if it is a sharing role, such as `lab` or `lab/sensing`.

    Raises:
        SpecError: if it is not one to eight names joined by '/'.
    """
    if not _ROLE.fullmatch(value):
        raise SpecError(f"role {value[:80]!r} is not one to eight names joined by '/'")
    return value


def format_task_id(task_id: TaskId) -> str:
    """Return the spelling for people: `t17`."""
    return f"t{task_id}"


def parse_task_id(text: str) -> TaskId:
    """Read `t17` or `17`.

    Raises:
        SpecError: if it is neither.
    """
    digits = text.removeprefix("t")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18 or int(digits) == 0:
        raise SpecError(f"{text[:40]!r} is not a task id: expected something like t17")
    return TaskId(int(digits))


def blob_id(data: bytes) -> BlobId:
    """Return the id under which `data` is stored and fetched."""
    return BlobId(hashlib.sha256(data).digest())
