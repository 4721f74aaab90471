"""Status updates that the gateway answers for: acknowledged to their devices, not yet to the gateway.

Custody is taken only while the master cannot be reached; otherwise acknowledgements pass from end to
end. What is taken is on the gateway's disk before the device is told, and stays until the master has it,
whatever becomes of the device meanwhile. Where room gets scarce, updates go that a later one of the same
attempt has overtaken; an end, and where a task stands, never go: then nothing more is taken, and the
device keeps what it has to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from edgerm_core.codec import encode
from edgerm_core.gateway.records import (
    CustodyDropped,
    CustodyReleased,
    CustodyTaken,
    MasterKnown,
    Record,
)
from edgerm_core.ids import AgentId, TaskId
from edgerm_core.messages import StatusUpdate

Key = tuple[TaskId, int]
"""One attempt: its task and its number."""

RECORD_BYTES = 96
"""What an update costs beside its own bytes."""


class Held:
    """One update in custody.

    Attributes:
        number: of the record that says so, counted from the gateway's start; 0: of an earlier run.
    """

    __slots__ = ("number", "size_bytes", "update")

    def __init__(self, update: StatusUpdate) -> None:
        self.update = update
        self.number = 0
        self.size_bytes = len(encode(update)) + RECORD_BYTES


class Custody:
    """All updates in custody.

    Parameters:
        max_bytes: of all together.

    Attributes:
        bytes_held: what they cost now.
        master_id: whose books they are for; empty: no master was ever met.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[AgentId, dict[Key, list[Held]]] = {}
        #: Updates that a later one of their attempt has overtaken, oldest first.
        self._overtaken: dict[tuple[AgentId, Key, int], None] = {}
        self.bytes_held = 0
        self.master_id = ""

    def agents(self) -> list[AgentId]:
        """Return whose updates are here."""
        return list(self._held)

    def of(self, agent_id: AgentId) -> Mapping[Key, list[Held]]:
        """Return an agent's updates by attempt, in order. Not to be changed."""
        return self._held.get(agent_id, {})

    def find(self, agent_id: AgentId, key: Key, seq: int) -> Held | None:
        """Return the update that makes number `seq` of an attempt known here: itself, or a later one."""
        return next((held for held in self.of(agent_id).get(key, ()) if held.update.seq >= seq), None)

    def take(self, agent_id: AgentId, update: StatusUpdate) -> tuple[Held | None, list[Record]]:
        """Take an update, which must be later than those of its attempt.

        Returns it, or None if there is no room, and what to write down in either case.
        """
        held = Held(update)
        before = self.of(agent_id).get((update.task_id, update.attempt))
        overtakes = bool(before) and not before[-1].update.state.terminal  # type: ignore[index]
        spare = before[-1].size_bytes if before and overtakes else 0
        records: list[Record] = []
        while self.bytes_held + held.size_bytes > self._max_bytes:
            dropped = self._drop_overtaken()
            if dropped is None:
                break
            records.append(dropped)
        if self.bytes_held + held.size_bytes - spare > self._max_bytes:
            return None, records
        self._add(agent_id, held)
        records.append(CustodyTaken(agent_id, update))
        while self.bytes_held > self._max_bytes and (dropped := self._drop_overtaken()) is not None:
            records.append(dropped)
        return held, records

    def release(self, agent_id: AgentId, key: Key, seq: int) -> Record | None:
        """The master has an attempt's updates up to `seq`; return what to write down, if any was here."""
        if not any(held.update.seq <= seq for held in self.of(agent_id).get(key, ())):
            return None
        record = CustodyReleased(agent_id, *key, seq)
        self.apply(record)
        return record

    def drop_lost(self, agent_id: AgentId, key: Key, last_seq: int) -> list[Record]:
        """The device knows no number of an attempt after `last_seq`: drop later ones; return what to write.

        A power cut took them from the device, which gives the same numbers again, to what happened since.
        An end stays: it counts, whatever the device does now.
        """
        held = self.of(agent_id).get(key, ())
        if not held or held[-1].update.state.terminal:
            return []
        lost = [each.update.seq for each in held if each.update.seq > last_seq]
        records: list[Record] = [CustodyDropped(agent_id, *key, seq) for seq in lost]
        for record in records:
            self.apply(record)
        return records

    def clear(self, master_id: str) -> Record:
        """Another master's books begin: nothing of this is for them. Return what to write down."""
        record = MasterKnown(master_id)
        self.apply(record)
        return record

    # --- records ------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Take a record from an earlier run, in the order in which they were written."""
        if isinstance(record, MasterKnown):
            if record.master_id != self.master_id:
                self._held.clear()
                self._overtaken.clear()
                self.bytes_held = 0
            self.master_id = record.master_id
        elif isinstance(record, CustodyTaken):
            self._add(record.agent_id, Held(record.update))
        elif isinstance(record, CustodyReleased):
            key = (record.task_id, record.attempt)
            for held in list(self.of(record.agent_id).get(key, ())):
                if held.update.seq <= record.seq:
                    self._remove(record.agent_id, key, held)
        else:
            key = (record.task_id, record.attempt)
            for held in list(self.of(record.agent_id).get(key, ())):
                if held.update.seq == record.seq:
                    self._remove(record.agent_id, key, held)

    def records(self) -> Iterator[Record]:
        """Yield records that say the same as all that were written so far."""
        if self.master_id:
            yield MasterKnown(self.master_id)
        for agent_id, attempts in self._held.items():
            for updates in attempts.values():
                for held in updates:
                    yield CustodyTaken(agent_id, held.update)

    # --- the books ----------------------------------------------------------------------------

    def _add(self, agent_id: AgentId, held: Held) -> None:
        update = held.update
        key = (update.task_id, update.attempt)
        updates = self._held.setdefault(agent_id, {}).setdefault(key, [])
        if updates and not updates[-1].update.state.terminal:
            self._overtaken[agent_id, key, updates[-1].update.seq] = None
        updates.append(held)
        self.bytes_held += held.size_bytes

    def _remove(self, agent_id: AgentId, key: Key, held: Held) -> None:
        attempts = self._held[agent_id]
        attempts[key].remove(held)
        self.bytes_held -= held.size_bytes
        self._overtaken.pop((agent_id, key, held.update.seq), None)
        if attempts[key]:
            # Where the task stands, also if a later one has gone.
            self._overtaken.pop((agent_id, key, attempts[key][-1].update.seq), None)
        else:
            del attempts[key]
            if not attempts:
                del self._held[agent_id]

    def _drop_overtaken(self) -> Record | None:
        """Let the oldest go that a later one says more than; return what to write down."""
        entry = next(iter(self._overtaken), None)
        if entry is None:
            return None
        agent_id, key, seq = entry
        record = CustodyDropped(agent_id, *key, seq)
        self.apply(record)
        return record


def recover(max_bytes: int, records: Iterable[Record]) -> Custody:
    """Return what the records of earlier runs say."""
    custody = Custody(max_bytes)
    for record in records:
        custody.apply(record)
    return custody
