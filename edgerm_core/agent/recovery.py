"""The agent's state out of its records, after the process or the whole machine was restarted."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.agent.records import (
    MasterKnown,
    Record,
    RunChanged,
    RunForgotten,
    RunLaunched,
    record_of,
    restore,
)
from edgerm_core.agent.run import Key, Phase, Run


class Recovered:
    """What the records say.

    Attributes:
        runs: every attempt that has not ended, or whose end the master has not acknowledged.
        master_id: whose runs they are; empty: no master was ever met.
    """

    def __init__(self) -> None:
        self.runs: dict[Key, Run] = {}
        self.master_id = ""

    def apply(self, record: Record) -> None:
        """Take one more record, in the order in which they were written."""
        if isinstance(record, RunLaunched):
            run = Run(record.launch)
            self.runs[run.key] = run
        elif isinstance(record, RunChanged):
            # Missing only where the disk lost an earlier record: nothing can be done about it then.
            if (known := self.runs.get((record.task_id, record.attempt))) is not None:
                restore(known, record)
        elif isinstance(record, RunForgotten):
            self.runs.pop((record.task_id, record.attempt), None)
        else:
            self.master_id = record.master_id


def recover(records: Iterable[Record]) -> Recovered:
    """Return what the records say."""
    recovered = Recovered()
    for record in records:
        recovered.apply(record)
    return recovered


def snapshot(runs: Iterable[Run], master_id: str) -> Iterable[Record]:
    """Yield the records that say the same as all that were written so far, for a compact journal."""
    if master_id:
        yield MasterKnown(master_id)
    for run in runs:
        yield RunLaunched(run.launch)
        told = run.updates.last_seq or not run.updates.settled
        if run.phase is not Phase.STARTING or run.restarts or told or run.ending:
            yield record_of(run)
