"""Compiled modules on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime
from edgerm_executor_wasm.compile_cache import TEMPORARY_KEEP_S, CompileCache
from edgerm_executor_wasm.engine import Host

from edgerm_core.ids import BlobId, blob_id

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig

MIB = 1 << 20


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.fixture
def cache(tmp_path: Path, host: Host) -> CompileCache:
    return CompileCache(tmp_path / "cache", MIB, host)


def compiled(host: Host, number: int) -> tuple[BlobId, wasmtime.Module]:
    data = bytes(wasmtime.wat2wasm(f'(module (func (export "f") (result i32) i32.const {number}))'))
    return blob_id(data), wasmtime.Module(host.engine, data)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_saved_module_is_loaded_again(cache: CompileCache, host: Host, tmp_path: Path) -> None:
    blob, module = compiled(host, 1)
    assert cache.load(blob) is None
    cache.save(blob, module)
    loaded = cache.load(blob)
    assert loaded is not None
    assert [export.name for export in loaded.exports] == ["f"]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in files(tmp_path)] == [".cwasm"]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_file_is_removed_and_not_loaded(
    cache: CompileCache, host: Host, tmp_path: Path, damage: bytes | None
) -> None:
    blob, module = compiled(host, 1)
    cache.save(blob, module)
    [path] = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage is None else damage)
    assert cache.load(blob) is None
    assert files(tmp_path) == []
    cache.save(blob, module)
    assert cache.load(blob) is not None


def test_file_that_is_intact_but_foreign_is_not_loaded(
    cache: CompileCache, host: Host, tmp_path: Path
) -> None:
    """A file may have the right checksum and still be of another engine: wasmtime refuses it."""
    config = wasmtime.Config()
    config.consume_fuel = True
    foreign = CompileCache(tmp_path / "cache", MIB, host)
    other = wasmtime.Module(wasmtime.Engine(config), "(module)")
    blob, _ = compiled(host, 1)
    foreign.save(blob, other)
    assert len(files(tmp_path)) == 1
    assert cache.load(blob) is None
    assert files(tmp_path) == []


def test_directory_that_others_may_write_to_is_not_used(host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    directory.chmod(0o777)
    cache = CompileCache(directory, MIB, host)
    blob, module = compiled(host, 1)
    cache.save(blob, module)
    assert files(tmp_path) == []
    assert cache.load(blob) is None


def test_link_to_a_directory_is_not_used(host: Host, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    cache = CompileCache(tmp_path / "cache", MIB, host)
    cache.save(*compiled(host, 1))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_place_that_cannot_be_a_directory_costs_only_the_cache(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CompileCache(tmp_path / "file" / "cache", MIB, host)
    blob, module = compiled(host, 1)
    cache.save(blob, module)
    assert cache.load(blob) is None


def test_least_recently_used_go_first(host: Host, tmp_path: Path) -> None:
    modules = [compiled(host, number) for number in range(4)]
    size = len(modules[0][1].serialize())
    cache = CompileCache(tmp_path / "cache", size * 3, host)
    for age, (blob, module) in enumerate(modules[:3]):
        cache.save(blob, module)
        newest = max(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000.0 + age, 1000.0 + age))
    assert cache.load(modules[0][0]) is not None  # Used again, so the second one is the oldest now.
    cache.save(*modules[3])
    assert [cache.load(blob) is not None for blob, _ in modules] == [True, False, True, True]


def test_module_larger_than_the_cache_is_not_kept(host: Host, tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache", 100, host)
    cache.save(*compiled(host, 1))
    assert files(tmp_path) == []


def test_what_a_crash_left_half_written_goes_after_a_while(
    cache: CompileCache, host: Host, tmp_path: Path
) -> None:
    for name, age_s in (("1-0.tmp", TEMPORARY_KEEP_S + 60), ("2-0.tmp", 0.0)):
        path = tmp_path / "cache" / name
        path.write_bytes(b"half")
        at = path.stat().st_mtime - age_s
        os.utime(path, (at, at))
    cache.save(*compiled(host, 1))
    assert [path.name for path in files(tmp_path) if path.suffix == ".tmp"] == ["2-0.tmp"]


@pytest.mark.anyio
async def test_next_agent_process_compiles_nothing(rig: Rig) -> None:
    for _ in range(3):
        assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    assert rig.compiled() == 1
    await rig.new_executor()
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    assert rig.compiled() == 0


@pytest.mark.anyio
async def test_damaged_cache_costs_one_compilation(rig: Rig) -> None:
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    await rig.new_executor()
    for path in (rig.base / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert (await rig.run(rig.launch("numbers", "nothing"))).ok
    assert rig.compiled() == 1
