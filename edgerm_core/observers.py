"""Observers: told of every change on the master after it is durable. They cannot change anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
"""One row of `edgerm ps --json`, `agents --json` or `frameworks --json`: plain values only."""


class Observer:
    """Override what you want to hear of. Called on the master's event loop: return fast.

    An observer that raises, or does not return within 10 s, is named in the log and is not called again.
    """

    def task_changed(self, task: Row) -> None:
        """A line was added to a task's story: it was submitted, entered a state (`task["state"]`,
        `task["reason"]`), or why it is in that state has changed. Of several lines at once the last
        one is told: a task that is placed when it is submitted comes as STAGING."""

    def agent_changed(self, agent: Row) -> None:
        """An agent came, went, or changed its state; a state may be told of twice."""

    def framework_changed(self, framework: Row) -> None:
        """A framework came, went, or changed its state; a state may be told of twice."""

    def close(self) -> None:
        """The master ends. Idempotent."""
