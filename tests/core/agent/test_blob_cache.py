"""The cache: bounded, least recently used first, never what is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgerm_core.agent.blob_cache import BlobCache
from edgerm_core.ids import BlobId, blob_id


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "blobs", 250)


def add(cache: BlobCache, byte: bytes) -> BlobId:
    data = byte * 100
    blob = blob_id(data)
    cache.part_path(blob).write_bytes(data)
    assert cache.finish(blob)
    cache.add(blob)
    return blob


def test_the_least_recently_used_goes_first(cache: BlobCache) -> None:
    first, second = add(cache, b"a"), add(cache, b"b")
    cache.hold(first)
    cache.let_go(first)
    third = add(cache, b"c")
    assert [blob in cache for blob in (first, second, third)] == [True, False, True]
    assert not cache.path(second).exists()
    assert cache.total_bytes == 200


def test_what_is_in_use_stays_until_it_is_let_go(cache: BlobCache) -> None:
    blobs = [blob_id(byte * 100) for byte in (b"a", b"b", b"c")]
    for blob in blobs:
        cache.hold(blob)
    for byte in (b"a", b"b", b"c"):
        add(cache, byte)
    assert cache.total_bytes == 300
    cache.let_go(blobs[1])
    assert [blob in cache for blob in blobs] == [True, False, True]


def test_a_damaged_blob_is_not_taken_in(cache: BlobCache) -> None:
    blob = blob_id(b"right")
    cache.part_path(blob).write_bytes(b"wrong")
    assert not cache.finish(blob)
    assert list(cache.directory.iterdir()) == []


def test_it_finds_its_blobs_again_and_obeys_a_smaller_limit(cache: BlobCache) -> None:
    first, second = add(cache, b"a"), add(cache, b"b")
    os.utime(cache.path(first), (1, 1))
    (cache.directory / "README").write_text("not a blob")
    again = BlobCache(cache.directory, 150)
    assert (first in again, second in again) == (False, True)
    assert (cache.directory / "README").exists()
