"""Stores with bugs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgerm_core.builtin import sqlite_store
from edgerm_core.errors import StoreError
from edgerm_core.interfaces import Store, StoreOpener, Write
from edgerm_core.testing.contracts.store import StoreContract

Record = tuple[str, bytes, bytes]


class Sound(StoreContract):
    caught_by: ClassVar[str]
    says: ClassVar[str] = ""
    opener: ClassVar[Any]

    @pytest.fixture
    def open_store(self) -> StoreOpener:
        found: StoreOpener = type(self).opener
        return found


class TestSound(Sound):
    opener = staticmethod(sqlite_store.open_store)


class Around(Store):
    """A sound store, to do something wrong with."""

    def __init__(self, data_dir: Path) -> None:
        self.inner = sqlite_store.open_store(data_dir)

    def load(self) -> Iterator[Record]:
        return self.inner.load()

    def commit(self, writes: Sequence[Write]) -> None:
        self.inner.commit(writes)

    def close(self) -> None:
        self.inner.close()


class Piecemeal(Around):
    def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            self.inner.commit([write])


class TestCommitsOneByOne(Sound):
    opener = Piecemeal
    caught_by = "test_a_commit_that_fails_half_way_leaves_nothing_behind"


class TestFillsTheDiskOneByOne(Sound):
    opener = Piecemeal
    caught_by = "test_a_full_disk_is_a_store_error_and_nothing_of_the_batch_is_kept"
    says = "something of the batch was kept"


class Unsorted(Around):
    def load(self) -> Iterator[Record]:
        return iter(list(self.inner.load())[::-1])


class TestLoadsInAnyOrder(Sound):
    opener = Unsorted
    caught_by = "test_keys_of_a_kind_come_in_ascending_order_of_their_bytes"


class FirstCounts(Around):
    def commit(self, writes: Sequence[Write]) -> None:
        self.inner.commit(list({(w.kind, w.key): w for w in reversed(writes)}.values()))


class TestLetsTheFirstWriteCount(Sound):
    opener = FirstCounts
    caught_by = "test_of_several_writes_to_one_place_the_last_one_counts"


class Lazy(Around):
    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.later: list[Write] = []

    def commit(self, writes: Sequence[Write]) -> None:
        self.later += writes

    def load(self) -> Iterator[Record]:
        self.inner.commit(self.later)
        self.later.clear()
        return self.inner.load()

    def close(self) -> None:
        if self.later:
            self.inner.commit(self.later)
            self.later.clear()
        self.inner.close()


class TestWritesWhenClosed(Sound):
    opener = Lazy
    caught_by = "test_everything_is_there_after_the_process_was_killed"


class ForgetsEmpty(Around):
    def commit(self, writes: Sequence[Write]) -> None:
        self.inner.commit([Write(w.kind, w.key, w.value or None) for w in writes])


class TestTakesEmptyForRemoved(Sound):
    opener = ForgetsEmpty
    caught_by = "test_what_was_committed_is_loaded"


class OneKind(Around):
    def commit(self, writes: Sequence[Write]) -> None:
        self.inner.commit([Write("all", w.key, w.value) for w in writes])


class TestMixesKinds(Sound):
    opener = OneKind
    caught_by = "test_kinds_do_not_mix"


class Lines(Store):
    """A line for every write, appended; a torn last line counts as never written. Nobody is kept out."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        path = data_dir / "records"
        self.records: dict[tuple[str, bytes], bytes] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if line.endswith(b"\n"):
                whole += len(line)
                kind, key, value = json.loads(line)
                self.apply(
                    Write(kind, bytes.fromhex(key), value if value is None else bytes.fromhex(value))
                )
        self.file = path.open("ab", buffering=0)
        self.file.truncate(whole)

    def apply(self, write: Write) -> None:
        if write.value is None:
            self.records.pop((write.kind, write.key), None)
        else:
            self.records[write.kind, write.key] = write.value

    def load(self) -> Iterator[Record]:
        return iter([(kind, key, value) for (kind, key), value in sorted(self.records.items())])

    def commit(self, writes: Sequence[Write]) -> None:
        lines = [[w.kind, w.key.hex(), None if w.value is None else w.value.hex()] for w in writes]
        self.file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        for write in writes:
            self.apply(write)

    def close(self) -> None:
        self.file.close()


class TestKeepsHalfOfATornCommit(Sound):
    opener = Lines
    caught_by = "test_a_commit_that_a_power_cut_tore_is_there_as_a_whole_or_not_at_all"
    says = "half of a commit is there"


class TestDoesNotNoticeAFullDisk(Sound):
    opener = Lines
    caught_by = "test_a_full_disk_is_a_store_error_and_nothing_of_the_batch_is_kept"
    says = "it does not notice that the disk is full"


class TestKeepsNobodyOut(Sound):
    opener = Lines
    caught_by = "test_a_second_one_on_the_directory_is_refused_until_the_first_is_closed"


class NamesNobody(Around):
    def __init__(self, data_dir: Path) -> None:
        try:
            super().__init__(data_dir)
        except StoreError as error:
            raise OSError("locked") from error


class TestSaysNotWhoHasIt(Sound):
    opener = NamesNobody
    caught_by = "test_a_second_one_on_the_directory_is_refused_until_the_first_is_closed"
    says = "locked"
