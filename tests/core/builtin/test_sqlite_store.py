"""The SQLite store: the contract, and what is its own."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.builtin import sqlite_store
from edgerm_core.builtin.sqlite_store import FILE_NAME, LOCK_NAME, open_store
from edgerm_core.config import Config
from edgerm_core.errors import StoreError, StoreLocked
from edgerm_core.interfaces import Store, StoreOpener, Write
from edgerm_core.plugins import Plugins
from edgerm_core.testing.contracts.store import StoreContract, records


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def open_store(self) -> StoreOpener:
        return open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


def test_it_comes_through_the_hook_like_any_other() -> None:
    plugins = Plugins(Config())
    plugins.add(sqlite_store, "sqlite", "edgerm-core", "0")
    assert plugins.create("store", "sqlite") is open_store


def test_a_commit_is_flushed_before_it_returns(tmp_path: Path, store: Store) -> None:
    """What a power cut leaves is what the settings below promise; SQLite's own tests pull the plug."""
    database = sqlite3.connect(tmp_path / FILE_NAME)
    assert database.execute("pragma journal_mode").fetchone() == ("wal",)
    database.close()
    assert isinstance(store, sqlite_store.SqliteStore)
    assert store._database is not None
    assert store._database.execute("pragma synchronous").fetchone() == (2,)  # FULL


def test_others_on_the_machine_cannot_read_it(tmp_path: Path) -> None:
    open_store(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_lock_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    tmp_path.joinpath(LOCK_NAME).write_text("999999\n")
    open_store(tmp_path).close()


def test_the_owner_is_named_by_its_process(tmp_path: Path, store: Store) -> None:
    with pytest.raises(StoreLocked, match=r"owned by another master \(process \d+\): stop it, or give"):
        open_store(tmp_path)


def test_a_store_that_could_not_be_opened_is_not_locked(tmp_path: Path) -> None:
    tmp_path.joinpath(FILE_NAME).mkdir()
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be opened") as refusal:
            open_store(tmp_path)
        assert not isinstance(refusal.value, StoreLocked)


def test_a_file_in_place_of_the_directory_is_said_so(tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("")
    with pytest.raises(StoreError, match=r"data directory .*file cannot be used: File exists"):
        open_store(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        open_store(tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [b"this is no database" * 300, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    tmp_path.joinpath(FILE_NAME).write_bytes(content)
    with pytest.raises(StoreError, match=r"master\.db cannot be opened|cannot be read"):
        records(open_store(tmp_path))


def test_pages_damaged_later_are_refused_when_they_are_loaded(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.commit([Write("task", n.to_bytes(8, "big"), b"v" * 500) for n in range(2000)])
    store.close()
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[8192 : len(content) // 2] = b"\xaa" * (len(content) // 2 - 8192)
    path.write_bytes(content)
    store = open_store(tmp_path)
    with pytest.raises(StoreError, match=r"cannot be read .*: restore it from a backup"):
        records(store)
    store.close()


def test_it_is_called_from_worker_threads(store: Store) -> None:
    threads = [
        threading.Thread(target=store.commit, args=([Write("task", bytes([n]), b"v")],)) for n in range(8)
    ]
    for thread in threads:  # One call at a time, as the runner does.
        thread.start()
        thread.join()
    assert len(records(store)) == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a mebibyte."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@pytest.mark.root
def test_a_full_disk_keeps_what_was_there_and_takes_more_once_there_is_room(small_disk: Path) -> None:
    store = open_store(small_disk)
    store.commit([Write("task", b"1", b"before")])
    filler = small_disk / "filler"
    fill(filler)
    writes = [Write("task", bytes([2, n]), b"v" * 10_000) for n in range(10)]
    with pytest.raises(StoreError, match=r"cannot be written .*: is the disk full or read-only"):
        store.commit([Write("task", b"1", b"after"), *writes])
    assert records(store) == [("task", b"1", b"before")]
    filler.unlink()
    store.commit([Write("task", b"1", b"after"), *writes])
    store.close()
    store = open_store(small_disk)
    assert len(records(store)) == 11
    store.close()


@pytest.mark.root
def test_a_disk_that_is_read_only_is_said_so(small_disk: Path) -> None:
    open_store(small_disk).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="cannot be used: Read-only file system"):
        open_store(small_disk)
