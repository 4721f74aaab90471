"""The default store: one SQLite file in the data directory, one transaction per batch.

Write-ahead log with `synchronous=FULL`: when `commit` returns, the batch survives a power cut. One
table, clustered by (kind, key), so that tasks, whose keys grow, are appended. A lock file keeps a
second master away; SQLite's own locks would let two masters take turns.

Every daemon loads this file for its hook, and only the master keeps records: sqlite3 is imported there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgerm_core.errors import StoreError, StoreLocked
from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider, Store, StoreOpener, Write

if TYPE_CHECKING:
    import sqlite3

FILE_NAME: Final = "master.db"
LOCK_NAME: Final = "lock"

_SCHEMA: Final = (
    "create table if not exists record "
    "(kind text not null, key blob not null, value blob not null, primary key (kind, key)) without rowid"
)


class SqliteStore(Store):
    """Records in `<data_dir>/master.db`. Open one with `open_store`."""

    def __init__(self, database: sqlite3.Connection, lock_fd: int, path: Path) -> None:
        self._database: sqlite3.Connection | None = database
        self._lock_fd = lock_fd
        self._path = path

    def load(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield every record; see `Store.load`."""
        import sqlite3

        assert self._database is not None, "store is closed"
        try:
            yield from self._database.execute("select kind, key, value from record order by kind, key")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read ({error}): restore it from a backup") from error

    def commit(self, writes: Sequence[Write]) -> None:
        """Write all or nothing, durably; see `Store.commit`."""
        import sqlite3

        assert self._database is not None, "store is closed"
        last = {(w.kind, w.key): w.value for w in writes}
        puts = [(kind, key, value) for (kind, key), value in last.items() if value is not None]
        removals = [place for place, value in last.items() if value is None]
        database = self._database
        try:
            database.execute("begin immediate")
            try:
                if puts:
                    database.executemany("insert or replace into record values (?, ?, ?)", puts)
                if removals:
                    database.executemany("delete from record where kind = ? and key = ?", removals)
                database.execute("commit")
            except BaseException:
                if database.in_transaction:
                    database.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path} cannot be written ({error}): is the disk full or read-only?"
            ) from error

    def close(self) -> None:
        """Release the data directory. Idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None
            os.close(self._lock_fd)


def open_store(data_dir: Path) -> Store:
    """Open, and if need be make, the store of a data directory.

    Raises:
        StoreLocked: if another process owns the directory.
        StoreError: if the directory or the file cannot be used.
    """
    import sqlite3

    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_fd = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"data directory {data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(lock_fd, 64).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        raise StoreLocked(
            f"data directory {data_dir} is owned by another master (process {owner}): stop it, or give "
            f"this one its own directory with --data-dir"
        ) from error
    os.ftruncate(lock_fd, 0)
    os.write(lock_fd, f"{os.getpid()}\n".encode())
    path = data_dir / FILE_NAME
    database: sqlite3.Connection | None = None
    try:
        # The runner calls from worker threads, one call at a time.
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute(_SCHEMA)
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        os.close(lock_fd)
        text = f"{path} cannot be opened ({error}): is the disk full or the file damaged?"
        raise StoreError(text) from error
    return SqliteStore(database, lock_fd, path)


@hookimpl
def stores() -> Iterable[Provider[StoreOpener]]:
    """Provide `sqlite`."""
    return [Provider("sqlite", lambda _: open_store, summary="records in one SQLite file")]
