"""One event's effects, in order."""

from __future__ import annotations

import logging

from edgerm_core.gateway.effects import Report, WriteRecord
from edgerm_core.gateway.records import MasterKnown
from edgerm_core.gateway.turn import Turn


def test_records_are_counted_over_all_events() -> None:
    turn = Turn()
    assert turn.write() == 0
    assert turn.write(MasterKnown("a"), MasterKnown("b")) == 2
    turn.effects = []
    assert turn.write(MasterKnown("c")) == 3
    turn.report("said")
    assert turn.effects == [WriteRecord(MasterKnown("c")), Report(logging.INFO, "said")]
