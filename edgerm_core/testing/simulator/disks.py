"""Durable stores that keep their promises and no more.

The master's disk commits a batch whole or not at all. The agent's journal survives the death of its
process from the moment it is appended, and a power cut from the moment it is synced; of what was not
synced, a first part may survive, since writes reach the flash in order.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edgerm_core.interfaces import Write

COMMIT_S: Final = 0.002
"""How long a commit takes on a disk that is well."""


class MasterDisk:
    """The master's store.

    Attributes:
        records: what is durable, by kind and key.
        refuses: whether a commit fails, as on a full disk.
        commit_s: how long a commit takes.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[bytes, bytes]] = {}
        self.refuses = False
        self.commit_s = COMMIT_S

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of them durable."""
        for write in writes:
            table = self.records.setdefault(write.kind, {})
            if write.value is None:
                table.pop(write.key, None)
            else:
                table[write.key] = write.value

    def load(self) -> Mapping[str, Mapping[bytes, bytes]]:
        """Return a copy of what is durable, keys in ascending order."""
        return {kind: dict(sorted(table.items())) for kind, table in self.records.items()}


class AgentDisk:
    """An agent's journal, with the same verbs as `agent.journal.Journal`.

    Attributes:
        refuses: whether appending fails, as on a full disk.
    """

    def __init__(self) -> None:
        self.refuses = False
        self._written: list[bytes] = []
        self._synced = 0
        self._backlog: list[bytes] = []
        self._since_rewrite: list[bytes] | None = None

    @property
    def dirty(self) -> bool:
        """Whether a sync would make a difference."""
        return self._synced < len(self._written)

    @property
    def behind(self) -> bool:
        """Whether some of what was appended is not in the file."""
        return bool(self._backlog)

    @property
    def length(self) -> int:
        """How many records there are in the file."""
        return len(self._written)

    def read(self) -> list[bytes]:
        """Return all records that are in the file."""
        return list(self._written)

    def durable(self) -> list[bytes]:
        """Return the records that would survive a power cut now."""
        return self._written[: self._synced]

    def told(self) -> list[bytes]:
        """Return all records of this process, those included that wait for the disk."""
        return [*self._written, *self._backlog]

    def append(self, payloads: Iterable[bytes]) -> None:
        """Add records; where the disk refuses they are kept for the next call."""
        new = list(payloads)
        self._backlog += new
        if self._since_rewrite is not None:
            self._since_rewrite += new
        if not self.refuses:
            self._written += self._backlog
            self._backlog = []

    def sync(self, length: int | None = None) -> None:
        """Make what was appended survive a power cut: all of it, or so many records of the file."""
        self._synced = len(self._written) if length is None else length

    def begin_rewrite(self, payloads: Iterable[bytes]) -> list[bytes]:
        """Begin to write the file anew; returns what `end_rewrite` will put in place."""
        self._since_rewrite = []
        return list(payloads)

    def end_rewrite(self, content: list[bytes]) -> None:
        """Put the new file in place, with what was appended since."""
        since, self._since_rewrite = self._since_rewrite, None
        assert since is not None
        if self.refuses:
            return
        self._written = [*content, *since]
        self._synced = len(content)
        self._backlog = []

    def kill(self) -> int:
        """The process dies: what was never written is lost. Returns how much that is."""
        lost = len(self._backlog)
        self._backlog = []
        self._since_rewrite = None
        return lost

    def cut_power(self, luck: random.Random) -> int:
        """The machine dies: a first part of what was not synced survives. Returns how much is lost."""
        unwritten = self.kill()
        kept = luck.randint(self._synced, len(self._written))
        lost = len(self._written) - kept + unwritten
        del self._written[kept:]
        self._synced = kept
        return lost
