"""Advances the engine's epoch while guests run, so that each of them pauses after its slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import wasmtime

TICK_S: Final = 0.005
"""Time between two epochs."""

SLICE_TICKS: Final = 2
"""A guest pauses at the second epoch after it went on: after 5 to 10 ms."""


class Ticker:
    """One thread for the process. Without running guests it sleeps.

    Parameters:
        engine: whose epoch to advance.
        busy: whether a guest runs now.
    """

    def __init__(self, engine: wasmtime.Engine, busy: Callable[[], bool]) -> None:
        self._engine = engine
        self._busy = busy
        self._parked = False
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="wasm-ticker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that a guest is about to run: after `busy` has become true."""
        if self._parked:
            self._wake.set()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._closed:
            time.sleep(TICK_S)
            self._engine.increment_epoch()
            if self._busy():
                continue
            self._wake.clear()
            self._parked = True
            # Whoever became busy before seeing `_parked` is seen here.
            if not self._busy() and not self._closed:
                self._wake.wait()
            self._parked = False
