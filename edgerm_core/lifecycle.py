"""Literal transition tables, applied. One function for tasks, agents, frameworks and offers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeVar

from edgerm_core.errors import TransitionError

StateT = TypeVar("StateT", bound=enum.IntEnum)


def check_transition(
    table: Mapping[StateT, frozenset[StateT]],
    start: StateT,
    finish: StateT,
    subject: str,
    story: Callable[[], list[str]] = list,
) -> None:
    """Return if `table` lists the step from `start` to `finish`.

    Raises:
        TransitionError: if it does not, with the story attached. That is a bug in edgerm: whatever
            a peer says is checked before it becomes a step.
    """
    if finish not in table[start]:
        raise TransitionError(subject, start.name, finish.name, story())
