"""The journal file: what is appended comes back, whatever happens to the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agent import journal as journal_module
from edgerm_core.agent.journal import MAGIC, DirectoryLock, Journal
from edgerm_core.agent.records import decode_record
from edgerm_core.errors import StoreError, StoreLocked

PAYLOADS = [b"one", b"", b"three" * 1000]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def written(path: Path, payloads: list[bytes]) -> None:
    journal = Journal(path)
    journal.append(payloads)
    journal.close()


def read(path: Path) -> list[bytes]:
    journal = Journal(path)
    payloads = journal.read()
    journal.close()
    return payloads


def test_what_was_appended_comes_back_in_order(path: Path) -> None:
    written(path, PAYLOADS[:1])
    written(path, PAYLOADS[1:])
    assert read(path) == PAYLOADS


def test_a_torn_tail_is_cut_off_and_later_appends_are_readable(path: Path) -> None:
    written(path, PAYLOADS)
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal(path)
    assert journal.read() == PAYLOADS[:2]
    journal.append([b"four"])
    journal.close()
    assert read(path) == [*PAYLOADS[:2], b"four"]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_costs_only_what_follows_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal"
    payloads = data.draw(st.lists(st.binary(max_size=20), max_size=6))
    written(path, payloads)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(len(MAGIC), len(raw)))
    if at < len(raw):
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    found = read(path)
    ends = [len(MAGIC)]
    for payload in payloads:
        ends.append(ends[-1] + 8 + len(payload))
    intact = sum(end <= at for end in ends[1:])
    assert found == payloads[:intact]


def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"something else entirely")
    journal = Journal(path)
    with pytest.raises(StoreError, match="not a journal of this version"):
        journal.read()
    journal.close()
    assert path.read_bytes() == b"something else entirely"


def test_an_unreadable_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        Journal(tmp_path / "missing" / "journal")


def test_a_rewrite_keeps_what_was_appended_meanwhile(path: Path) -> None:
    journal = Journal(path)
    journal.append([b"old"] * 100)
    write = journal.begin_rewrite([b"state"])
    journal.append([b"new"])
    write()
    journal.append([b"newer"])
    journal.end_rewrite()
    journal.append([b"newest"])
    journal.close()
    assert read(path) == [b"state", b"new", b"newer", b"newest"]


def test_a_rewrite_that_fails_leaves_everything_as_it_was(path: Path) -> None:
    journal = Journal(path)
    journal.append([b"old"])
    journal.begin_rewrite([b"state"])
    journal.append([b"new"])
    journal.end_rewrite(OSError(errno.ENOSPC, "no space left"))
    journal.close()
    assert read(path) == [b"old", b"new"]


def test_a_rewrite_survives_a_power_cut_once_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new name in a directory is on the disk when the directory is."""
    journal = Journal(path)
    journal.sync()
    synced: list[int] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    journal.append([b"one"])
    journal.sync()
    assert synced == [], "an append changes no name"
    journal.begin_rewrite([b"one"])()
    journal.end_rewrite()
    journal.sync()
    assert os.stat(path.parent).st_ino in synced
    journal.close()


def test_it_asks_for_a_rewrite_when_it_has_grown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_COMPACT_BYTES", 1000)
    journal = Journal(path)
    journal.append([b"x" * 500])
    assert not journal.wants_rewrite()
    journal.append([b"x" * 500])
    assert journal.wants_rewrite()
    journal.begin_rewrite([b"state"])()
    assert not journal.wants_rewrite()
    journal.end_rewrite()
    assert not journal.wants_rewrite()
    journal.close()


class FullDisk:
    """A file on a disk that takes only part of what is written."""

    def __init__(self, path: Path, room: int) -> None:
        self._file = open(path, "ab", buffering=0)
        self._room = room
        self.closed = False

    def write(self, data: bytes) -> int:
        return self._file.write(bytes(data)[: self._room])

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_loses_nothing_once_there_is_room_again(path: Path, room: int) -> None:
    journal = Journal(path)
    journal.append([b"before"])
    file = journal._file
    full = FullDisk(path, room)
    journal._file = full  # type: ignore[assignment]
    journal.append([b"while it is full"])
    behind = journal.behind
    journal._file = file
    full.close()
    assert read(path) == [b"before"], "no half frame is left behind"
    journal.append([b"after"])
    assert (behind, journal.behind) == (True, False)
    journal.close()
    assert read(path) == [b"before", b"while it is full", b"after"]


def test_a_sync_says_whether_it_worked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append([b"x"])
    assert journal.sync()

    def fail(_: int) -> None:
        raise OSError("the disk has gone")

    monkeypatch.setattr("os.fdatasync", fail)
    assert not journal.sync()
    monkeypatch.undo()
    journal.close()


def test_a_directory_belongs_to_one_agent(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "agent")
    with pytest.raises(StoreLocked, match=r"agent\.data_dir"):
        DirectoryLock(tmp_path / "agent")
    lock.close()
    DirectoryLock(tmp_path / "agent").close()


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x81\x18\x63", b"\x82\x02\x01"])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_record(data)
