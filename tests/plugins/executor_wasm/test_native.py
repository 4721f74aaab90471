"""Guests that pause: between polls, between threads, and for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import wasmtime
from edgerm_executor_wasm import native

if TYPE_CHECKING:
    from tests.plugins.executor_wasm.conftest import Rig


@pytest.fixture
def engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.epoch_interruption = True
    return wasmtime.Engine(config)


@pytest.fixture
def store(engine: wasmtime.Engine, make_rig: Callable[[], Rig]) -> native.Store:
    """An instance of `spins`."""
    store = native.Store(engine, 1 << 20, 10, 1, slice_ticks=1, wasi=None)
    module = wasmtime.Module(engine, make_rig().binary("spins"))
    future = store.instantiate(wasmtime.Linker(engine).instantiate_pre(module))
    assert native.poll(future.pointer)
    future.delete_ended()
    assert future.values() == []
    store.find_memory()
    return store


def test_guest_goes_on_in_another_thread_where_it_paused(
    engine: wasmtime.Engine, store: native.Store
) -> None:
    future = store.call("rounds", ("i64",), (3_000_000,), 1)
    engine.increment_epoch()
    assert not native.poll(future.pointer), "its slice is over before it begins"
    ended: list[bool] = []

    def go_on() -> None:
        ended.append(native.poll(future.pointer))

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join(30)
    assert ended == [True]
    future.delete_ended()
    assert future.values() == [0]
    store.close()
    store.close()


def test_paused_endless_guest_is_ended_with_its_future(
    engine: wasmtime.Engine, store: native.Store
) -> None:
    future = store.call("_start", (), (), 0)
    engine.increment_epoch()
    assert not native.poll(future.pointer)
    assert store.mem_bytes() == 65_536
    future.delete_paused()
    store.close()


def test_memory_is_written_and_read(store: native.Store) -> None:
    memory = store.memory()
    assert len(memory) == store.mem_bytes() == 65_536
    memory[10:13] = b"abc"
    assert bytes(store.memory()[9:14]) == b"\0abc\0"
    store.close()


def test_store_without_memory_has_none(engine: wasmtime.Engine) -> None:
    store = native.Store(engine, 1 << 20, 10, 1, slice_ticks=1, wasi=None)
    module = wasmtime.Module(engine, '(module (func (export "memory")))')
    future = store.instantiate(wasmtime.Linker(engine).instantiate_pre(module))
    assert native.poll(future.pointer)
    future.delete_ended()
    assert future.values() == []
    store.find_memory()
    assert store.mem_bytes() == 0
    assert len(store.memory()) == 0
    store.close()
