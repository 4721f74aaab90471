"""Blobs on the master's disk: resumed, checked, bounded, and honest about the disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgerm_core.errors import BlobError
from edgerm_core.ids import BlobId, blob_id
from edgerm_core.master.blobs import BlobStore

DATA = bytes(range(256)) * 40
BLOB = blob_id(DATA)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def store(directory: Path) -> BlobStore:
    return BlobStore(directory, max_blob_bytes=1 << 20, store_bytes=4 << 20)


def upload(store: BlobStore, data: bytes, piece: int = 4096) -> BlobId:
    blob = blob_id(data)
    have = store.have(blob, len(data))
    while have < len(data):
        have = store.write(blob, have, len(data), data[have : have + piece])
    return blob


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_blob_arrives_in_pieces_and_is_read_in_pieces(store: BlobStore, directory: Path) -> None:
    upload(store, DATA, piece=1000)
    assert files(directory) == [BLOB.hex()]
    assert store.scan() == {BLOB: len(DATA)}
    pieces, offset = b"", 0
    while offset < len(DATA):
        size, piece = store.read(BLOB, offset, 777)
        assert size == len(DATA)
        pieces += piece
        offset += len(piece)
    assert pieces == DATA
    assert store.read(BLOB, len(DATA) + 5, 10) == (len(DATA), b"")
    assert store.read(BLOB, 0, 0) == (len(DATA), b"")


def test_an_upload_goes_on_where_it_stopped_also_in_another_process(
    store: BlobStore, directory: Path
) -> None:
    store.write(BLOB, 0, len(DATA), DATA[:5000])
    again = BlobStore(directory, 1 << 20, 4 << 20)
    assert again.scan() == {}
    assert again.have(BLOB, len(DATA)) == 5000
    assert again.write(BLOB, 5000, len(DATA), DATA[5000:]) == len(DATA)
    assert again.read(BLOB, 0, len(DATA))[1] == DATA


@pytest.mark.parametrize("offset", [0, 4999, 5001, 10_000])
def test_a_piece_that_does_not_follow_is_left_out_and_the_answer_says_where_to_go_on(
    store: BlobStore, offset: int
) -> None:
    store.write(BLOB, 0, len(DATA), DATA[:5000])
    assert store.write(BLOB, offset, len(DATA), b"xyz") == 5000
    upload(store, DATA)
    assert store.read(BLOB, 0, len(DATA))[1] == DATA


def test_a_blob_that_is_there_is_not_taken_again(store: BlobStore) -> None:
    upload(store, DATA)
    assert store.have(BLOB, len(DATA)) == len(DATA)
    assert store.write(BLOB, 0, len(DATA), b"other bytes") == len(DATA)
    assert store.read(BLOB, 0, len(DATA))[1] == DATA


def test_content_with_another_hash_is_thrown_away_and_can_be_sent_again(
    store: BlobStore, directory: Path
) -> None:
    with pytest.raises(BlobError, match=r"has the hash .* not .*: send it again"):
        store.write(BLOB, 0, len(DATA), b"x" * len(DATA))
    assert files(directory) == []
    upload(store, DATA)
    assert store.scan() == {BLOB: len(DATA)}


def test_an_empty_blob_is_there_as_soon_as_it_is_offered(store: BlobStore) -> None:
    empty = blob_id(b"")
    assert store.have(empty, 0) == 0
    assert store.scan() == {empty: 0}
    assert store.read(empty, 0, 10) == (0, b"")


def test_an_empty_upload_under_a_wrong_hash_is_refused(store: BlobStore, directory: Path) -> None:
    with pytest.raises(BlobError, match="send it again"):
        store.have(BLOB, 0)
    assert files(directory) == []


@pytest.mark.parametrize("size", [(1 << 20) + 1, 1 << 62, -1])
def test_a_size_beyond_the_limit_is_refused_before_a_byte_is_kept(
    store: BlobStore, directory: Path, size: int
) -> None:
    with pytest.raises(
        BlobError, match=r"larger than the 1 MiB this master takes \(master.max_blob_bytes\)"
    ):
        store.have(BLOB, size)
    with pytest.raises(BlobError):
        store.write(BLOB, 0, size, b"x")
    assert files(directory) == []


def test_more_data_than_announced_is_refused(store: BlobStore, directory: Path) -> None:
    store.write(BLOB, 0, 10, b"12345")
    with pytest.raises(BlobError, match="more data than the 10 bytes announced"):
        store.write(BLOB, 5, 10, b"123456")
    assert store.have(BLOB, 10) == 5


def test_another_size_than_that_of_the_blob_is_refused(store: BlobStore) -> None:
    upload(store, DATA)
    with pytest.raises(BlobError, match=f"has {len(DATA)} bytes, not 7"):
        store.have(BLOB, 7)


def test_bytes_that_came_under_a_larger_size_do_not_count(store: BlobStore) -> None:
    """Somebody who announced a wrong size and sent rubbish made the blob look complete to the next
    one: nobody uploaded it any more, and no agent could fetch it."""
    store.write(BLOB, 0, len(DATA) + 500, b"r" * (len(DATA) + 100))
    assert store.have(BLOB, len(DATA)) == 0
    upload(store, DATA)
    assert store.read(BLOB, 0, len(DATA))[1] == DATA


def test_a_master_killed_before_it_checked_the_last_piece_checks_it_later(
    store: BlobStore, directory: Path
) -> None:
    """All pieces were there, so the upload counted as done, but the file still had its `.part` name."""
    (directory / f"{BLOB.hex()}.part").write_bytes(DATA)
    assert store.have(BLOB, len(DATA)) == len(DATA)
    assert store.scan() == {BLOB: len(DATA)}
    other = blob_id(b"other")
    (directory / f"{other.hex()}.part").write_bytes(b"wrong")
    with pytest.raises(BlobError, match="send it again"):
        store.have(other, 5)
    assert store.have(other, 5) == 0


def test_a_blob_that_is_not_there_is_said_so(store: BlobStore) -> None:
    with pytest.raises(BlobError, match=f"blob {BLOB.hex()[:12]} is not here: No such file"):
        store.read(BLOB, 0, 10)


def test_foreign_files_are_left_alone(store: BlobStore, directory: Path) -> None:
    for name in ("README", "x" * 64, "lost+found.txt", "ab" * 32 + ".bak"):
        (directory / name).write_bytes(b"mine")
    upload(store, DATA)
    assert store.scan() == {BLOB: len(DATA)}
    store.make_room(1 << 30, set())
    assert len(files(directory)) == 4


# --- room -----------------------------------------------------------------------------------------


@pytest.fixture
def small(directory: Path) -> BlobStore:
    """Room for three blobs of a thousand bytes."""
    return BlobStore(directory, max_blob_bytes=1000, store_bytes=3000)


@pytest.fixture
def used(directory: Path) -> Callable[[BlobId, int], None]:
    """Say when a blob, or what has arrived of it, was used last: larger is later."""

    def use(blob: BlobId, when: int) -> None:
        for path in directory.glob(f"{blob.hex()}*"):
            os.utime(path, (1_000_000 + when, 1_000_000 + when))

    return use


def thousand(number: int) -> bytes:
    return bytes([number]) * 1000


def test_the_least_recently_used_go_first(small: BlobStore, used: Callable[[BlobId, int], None]) -> None:
    first, second, third = (upload(small, thousand(n)) for n in range(3))
    used(first, 2)
    used(second, 1)
    used(third, 3)
    assert small.make_room(0, set()) == []
    assert small.make_room(500, set()) == [second]
    assert small.make_room(2000, set()) == [first]
    assert set(small.scan()) == {third}


def test_reading_from_the_start_and_offering_count_as_use(
    small: BlobStore, used: Callable[[BlobId, int], None]
) -> None:
    blobs = [upload(small, thousand(n)) for n in range(3)]
    for when, blob in enumerate(blobs):
        used(blob, when)
    small.read(blobs[0], 0, 10)
    small.have(blobs[1], 1000)
    assert small.make_room(1000, set()) == [blobs[2]]


def test_what_is_in_use_stays_even_beyond_the_limit(small: BlobStore) -> None:
    blobs = [upload(small, thousand(n)) for n in range(4)]
    assert small.make_room(1000, set(blobs)) == []
    assert small.make_room(1000, set(blobs[1:])) == [blobs[0]]
    assert set(small.scan()) == set(blobs[1:])


def test_uploads_that_never_ended_make_room_too(
    small: BlobStore, directory: Path, used: Callable[[BlobId, int], None]
) -> None:
    """They were counted nowhere, and could fill the disk."""
    abandoned = [blob_id(thousand(n)) for n in range(5)]
    for when, blob in enumerate(abandoned):
        small.write(blob, 0, 1000, b"x" * 900)
        used(blob, when)
    assert small.make_room(1000, set()) == []
    assert len(files(directory)) == 2
    assert small.have(abandoned[4], 1000) == 900, "the latest one may still go on"


# --- the disk -------------------------------------------------------------------------------------


def test_a_directory_that_is_gone_is_a_sentence_and_not_a_crash(store: BlobStore, directory: Path) -> None:
    directory.rmdir()
    directory.write_text("a file stands in its place")
    with pytest.raises(BlobError, match="cannot be stored: Not a directory"):
        store.write(BLOB, 0, len(DATA), DATA)
    with pytest.raises(BlobError, match="cannot be stored"):
        store.have(blob_id(b""), 0)
    with pytest.raises(BlobError, match="is not here"):
        store.read(BLOB, 0, 10)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_refuses_the_piece_and_the_upload_can_go_on_later(full_disk: Path) -> None:
    store = BlobStore(full_disk / "blobs", 1 << 20, 4 << 20)
    filler = full_disk / "filler"
    filler.write_bytes(b"x" * (48 << 10))
    data = os.urandom(40 << 10)
    blob = blob_id(data)
    with pytest.raises(BlobError, match="cannot be stored: No space left on device"):
        store.write(blob, 0, len(data), data)
    filler.unlink()
    assert upload(store, data) == blob
    assert store.read(blob, 0, len(data))[1] == data
