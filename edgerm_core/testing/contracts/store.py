"""What every store must do, as tests. For your plugin:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def open_store(self) -> StoreOpener:
            return open_my_store

The suite writes into directories of its own. It cannot cut the power; it can end a process without
warning, and does, where the opener can be imported by another process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edgerm_core.errors import StoreLocked
from edgerm_core.interfaces import Store, StoreOpener, Write
from edgerm_core.testing.contracts.alarm import TimelyContract

Record = tuple[str, bytes, bytes]

PROCESS_TIMEOUT_S: Final = 60.0

TORN_AT: Final = 12
"""In so many places the last commit is cut off."""

_DIES: Final = """
import importlib, os, signal, sys
from pathlib import Path
from edgerm_core.interfaces import Write
store = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(Path(sys.argv[3]))
for number in range(3):
    store.commit([Write("task", bytes([number, part]), b"v" * 1000) for part in range(10)])
os.kill(os.getpid(), signal.SIGKILL)
"""


_FILLS: Final = """
import importlib, resource, signal, sys
from pathlib import Path
from edgerm_core.errors import StoreError
from edgerm_core.interfaces import Write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data_dir = Path(sys.argv[3])
store = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(data_dir)
store.commit([Write("task", b"1", b"before")])
largest = max(path.stat().st_size for path in data_dir.rglob("*"))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, hard))
try:
    large = [Write("task", b"2%d" % n, bytes(1000)) for n in range(1000)]
    store.commit([*large, Write("task", b"1", None)])
except StoreError as error:
    assert str(error)
else:
    raise AssertionError("it does not notice that the disk is full")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert list(store.load()) == [("task", b"1", b"before")], "something of the batch was kept"
store.commit([Write("task", b"3", b"afterwards")])
store.close()
"""
"""No file may grow beyond a limit: for the store that is a full disk."""


def _importable(open_store: StoreOpener) -> tuple[str, str]:
    """Return where another process finds the opener, or skip."""
    module, name = getattr(open_store, "__module__", ""), getattr(open_store, "__name__", "")
    if not hasattr(sys.modules.get(module), name):
        pytest.skip("the opener is not at the top of a module, where another process could import it")
    return module, name


def _sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file()}


def records(store: Store) -> list[Record]:
    """Return all that is in the store, in the order of `load`."""
    return list(store.load())


class StoreContract(TimelyContract):
    """Subclass it in a test module, as `Test…`, and override `open_store`."""

    # --- fixtures to override ---------------------------------------------------------------------

    @pytest.fixture
    def open_store(self) -> StoreOpener:
        """The opener under test."""
        raise NotImplementedError("override the fixture `open_store`")

    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        """A directory that is not there yet."""
        return tmp_path / "made" / "on the way"

    @pytest.fixture
    def store(self, open_store: StoreOpener, data_dir: Path) -> Iterator[Store]:
        """An open, empty store."""
        store = open_store(data_dir)
        yield store
        store.close()

    # --- what is written is there -----------------------------------------------------------------

    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert records(store) == []

    def test_what_was_committed_is_loaded(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"one"), Write("agent", b"a", b"")])
        assert sorted(records(store)) == [("agent", b"a", b""), ("task", b"1", b"one")]

    def test_keys_of_a_kind_come_in_ascending_order_of_their_bytes(self, store: Store) -> None:
        keys = [number.to_bytes(8, "big") for number in (300, 2, 65_536, 1, 255, 256)]
        keys += [b"", b"\x00", b"\xff", b"\x00" * 9, b"a", b"B"]
        for index, key in enumerate(keys):
            store.commit([Write("task", key, b"%d" % index), Write("spec", key, b"s")])
        for kind in ("task", "spec"):
            assert [key for found, key, _ in records(store) if found == kind] == sorted(keys)

    def test_kinds_do_not_mix(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"task"), Write("spec", b"1", b"spec")])
        store.commit([Write("task", b"1", None)])
        assert records(store) == [("spec", b"1", b"spec")]

    def test_a_later_commit_replaces_the_value(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"old and longer")])
        store.commit([Write("task", b"1", b"new")])
        assert records(store) == [("task", b"1", b"new")]

    def test_of_several_writes_to_one_place_the_last_one_counts(self, store: Store) -> None:
        store.commit(
            [
                Write("a", b"1", b"x"),
                Write("a", b"1", b"y"),
                Write("b", b"1", b"x"),
                Write("b", b"1", None),
                Write("c", b"1", None),
                Write("c", b"1", b"z"),
            ]
        )
        assert sorted(records(store)) == [("a", b"1", b"y"), ("c", b"1", b"z")]

    def test_a_removed_record_is_gone_and_removing_it_again_is_no_error(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"one"), Write("task", b"2", b"two")])
        store.commit([Write("task", b"1", None)])
        store.commit([Write("task", b"1", None), Write("task", b"never there", None)])
        assert records(store) == [("task", b"2", b"two")]

    def test_an_empty_commit_changes_nothing(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"one")])
        store.commit([])
        assert records(store) == [("task", b"1", b"one")]

    def test_any_bytes_come_back_as_they_were(self, store: Store) -> None:
        every = bytes(range(256))
        store.commit([Write("task", every, every * 3)])
        assert records(store) == [("task", every, every * 3)]

    def test_large_values_are_kept(self, store: Store) -> None:
        values = {bytes([n]): bytes([n]) * (1 << (17 + n)) for n in range(5)}
        store.commit([Write("spec", key, value) for key, value in values.items()])
        assert {key: value for _, key, value in store.load()} == values

    def test_many_records_in_one_commit_are_kept(self, store: Store) -> None:
        count = 20_000
        store.commit([Write("task", n.to_bytes(8, "big"), b"%d" % n) for n in range(count)])
        found = records(store)
        assert len(found) == count
        assert found[-1] == ("task", (count - 1).to_bytes(8, "big"), b"%d" % (count - 1))

    # --- all or nothing ---------------------------------------------------------------------------

    def test_a_commit_that_fails_half_way_leaves_nothing_behind(self, store: Store) -> None:
        store.commit([Write("task", b"1", b"before"), Write("task", b"2", b"stays")])
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the store's own affair.
            store.commit(
                [
                    Write("task", b"1", b"after"),
                    Write("task", b"3", b"new"),
                    Write("task", b"2", None),
                    Write("task", b"4", object()),  # type: ignore[arg-type]
                ]
            )
        assert records(store) == [("task", b"1", b"before"), ("task", b"2", b"stays")]
        store.commit([Write("task", b"3", b"afterwards")])
        assert len(records(store)) == 3

    def test_a_commit_that_a_power_cut_tore_is_there_as_a_whole_or_not_at_all(
        self, open_store: StoreOpener, data_dir: Path, tmp_path: Path
    ) -> None:
        store = open_store(data_dir)
        store.commit([Write("task", bytes([number]), b"v" * 500) for number in range(5)])
        before, sizes = records(store), _sizes(data_dir)
        store.commit([Write("task", bytes([number]), b"w" * 700) for number in range(3, 9)])
        after = records(store)
        image = tmp_path / "image"
        shutil.copytree(data_dir, image)
        store.close()
        grown = [name for name, size in _sizes(image).items() if size > sizes.get(name, 0)]
        if len(grown) != 1:
            pytest.skip(
                f"the store appends to {len(grown)} files: which of them the cut tears is its own affair"
            )
        first, end = sizes.get(grown[0], 0), _sizes(image)[grown[0]]
        for part in range(TORN_AT):
            torn = tmp_path / f"torn {part}"
            shutil.copytree(image, torn)
            os.truncate(torn / grown[0], first + (end - first) * part // TORN_AT)
            survivor = open_store(torn)
            assert records(survivor) in (before, after), "half of a commit is there"
            survivor.commit([Write("task", b"later", b"still works")])
            survivor.close()
            again = open_store(torn)
            assert ("task", b"later", b"still works") in records(again)
            again.close()

    def test_a_full_disk_is_a_store_error_and_nothing_of_the_batch_is_kept(
        self, open_store: StoreOpener, data_dir: Path
    ) -> None:
        module, name = _importable(open_store)
        ended = subprocess.run(
            [sys.executable, "-c", _FILLS, module, name, str(data_dir)],
            timeout=PROCESS_TIMEOUT_S,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        store = open_store(data_dir)
        assert [key for _, key, _ in records(store)] == [b"1", b"3"]
        store.close()

    # --- it lasts ---------------------------------------------------------------------------------

    def test_everything_is_there_after_closing_and_opening(
        self, open_store: StoreOpener, data_dir: Path
    ) -> None:
        for round_number in range(3):
            store = open_store(data_dir)
            before = records(store)
            assert len(before) == round_number * 10
            store.commit([Write("task", bytes([round_number, n]), b"v" * n) for n in range(10)])
            store.close()
        store = open_store(data_dir)
        assert len(records(store)) == 30
        store.close()

    def test_everything_is_there_after_the_process_was_killed(
        self, open_store: StoreOpener, data_dir: Path
    ) -> None:
        module, name = _importable(open_store)
        ended = subprocess.run(
            [sys.executable, "-c", _DIES, module, name, str(data_dir)],
            timeout=PROCESS_TIMEOUT_S,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        store = open_store(data_dir)
        assert len(records(store)) == 30
        store.close()

    # --- one owner --------------------------------------------------------------------------------

    def test_a_second_one_on_the_directory_is_refused_until_the_first_is_closed(
        self, open_store: StoreOpener, data_dir: Path
    ) -> None:
        first = open_store(data_dir)
        with pytest.raises(StoreLocked, match=str(os.getpid())) as refusal:
            open_store(data_dir)
        assert str(data_dir) in str(refusal.value)
        first.commit([Write("task", b"1", b"still works")])
        first.close()
        second = open_store(data_dir)
        assert records(second) == [("task", b"1", b"still works")]
        second.close()

    def test_two_directories_are_two_stores(self, open_store: StoreOpener, tmp_path: Path) -> None:
        first, second = open_store(tmp_path / "first"), open_store(tmp_path / "second")
        first.commit([Write("task", b"1", b"one")])
        assert records(second) == []
        first.close()
        second.close()

    def test_closing_twice_is_no_error(self, open_store: StoreOpener, data_dir: Path) -> None:
        store = open_store(data_dir)
        store.close()
        store.close()
        open_store(data_dir).close()
