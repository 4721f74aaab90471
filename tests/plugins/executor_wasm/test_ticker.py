"""The thread that advances the epoch."""

from __future__ import annotations

import threading

import wasmtime
from edgerm_executor_wasm.ticker import Ticker


class CountingEngine(wasmtime.Engine):
    """Tells when the epoch has advanced ten times."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self.ten = threading.Event()

    def increment_epoch(self) -> None:
        super().increment_epoch()
        self.ticks += 1
        if self.ticks >= 10:
            self.ten.set()


def test_epoch_advances_only_while_somebody_is_busy() -> None:
    engine = CountingEngine()
    busy = threading.Event()
    ticker = Ticker(engine, busy.is_set)
    assert not engine.ten.wait(0.2), "nobody was busy"
    busy.set()
    ticker.wake()
    assert engine.ten.wait(10)
    busy.clear()
    ticker.close()
    assert not ticker._thread.is_alive()
