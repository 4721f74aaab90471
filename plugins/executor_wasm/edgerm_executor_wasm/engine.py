"""The process's one engine, its settings, and what a module may import."""

from __future__ import annotations

import threading
from typing import Any, Final

import wasmtime

from edgerm_executor_wasm.clock import Sleeper, define_clock

SETTINGS: Final = "epochs; one memory; no threads; no gc"
"""Names what `_config` sets beyond wasmtime's defaults. Compiled modules of other settings are not used."""

MAX_TABLES: Final = 16
MAX_TABLE_ELEMENTS: Final = 100_000
"""Tables are not part of a task's `mem`: at most 16 of 800 KB."""

SMALL_ADDRESS_SPACE: Final = 1 << 40
"""Below this (39 bits on many 64-bit Raspberry Pi kernels) 4 GiB of addresses for each memory would
allow a hundred tasks. Then memories are made just as large as needed, and guests run somewhat slower."""


def address_space() -> int:
    """Return the size of the process's address space, by where its stack ends."""
    try:
        with open("/proc/self/maps", encoding="ascii") as maps:
            ends = [line.split("-")[1].split()[0] for line in maps if line.endswith("[stack]\n")]
        return int(ends[0], 16)
    except (OSError, IndexError, ValueError):
        return SMALL_ADDRESS_SPACE


def _config(space: int) -> wasmtime.Config:
    config = wasmtime.Config()
    config.epoch_interruption = True
    # A store's limit counts for each memory; with one memory it is the task's limit.
    config.wasm_multi_memory = False
    # Waiting on shared memory blocks a thread that no epoch can interrupt.
    config.wasm_threads = False
    # Its heap would be memory beside the task's limit.
    config.wasm_gc = False
    # A large module must not take all processors from the tasks that run.
    config.parallel_compilation = False
    if space <= SMALL_ADDRESS_SPACE:
        config.memory_reservation = 0
        config.memory_reservation_for_growth = 0
        config.memory_guard_size = 0
    return config


class Host:
    """Engine and linker, shared by all runs of the process.

    Attributes:
        engine, linker: wasmtime's.
        settings: all that decides whether a compiled module fits this engine.
        current: `current.run` is whom a worker thread is running.
    """

    def __init__(self) -> None:
        space = address_space()
        self.engine = wasmtime.Engine(_config(space))
        self.settings = f"{SETTINGS}; {'small' if space <= SMALL_ADDRESS_SPACE else 'large'} addresses"
        self.current = threading.local()
        self.linker = wasmtime.Linker(self.engine)
        self.linker.allow_shadowing = True
        self.linker.define_wasi()
        self._kept: list[Any] = define_clock(self.linker, self._current_run)

    def _current_run(self) -> Sleeper:
        run: Sleeper = self.current.run
        return run
