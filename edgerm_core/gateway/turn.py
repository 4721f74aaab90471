"""What the parts of the gateway's state machine share while one event is handled."""

from __future__ import annotations

import logging

from edgerm_core.agent.deadlines import Deadlines
from edgerm_core.gateway.effects import Effect, Report, WriteRecord
from edgerm_core.gateway.records import Record


class Turn:
    """The present moment, the effects collected so far, and what is due when.

    Attributes:
        now: seconds; never goes backwards.
        effects: of the event being handled, in order.
        deadlines: everything that has to happen by itself later.
        records: how many were written since the start.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.effects: list[Effect] = []
        self.deadlines = Deadlines()
        self.records = 0

    def emit(self, effect: Effect) -> None:
        """Add an effect."""
        self.effects.append(effect)

    def write(self, *records: Record) -> int:
        """Write records down; return the number of the last one."""
        for record in records:
            self.records += 1
            self.effects.append(WriteRecord(record))
        return self.records

    def report(self, text: str, level: int = logging.INFO) -> None:
        """Put a line into the operator's log."""
        self.effects.append(Report(level, text))
