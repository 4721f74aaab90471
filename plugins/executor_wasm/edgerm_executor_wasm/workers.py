"""Threads that give runs their turns.

One thread serves short runs: new ones, and those that wake up. Two threads that make instances would
mostly wait for each other's interpreter lock. A run that uses up its slice there goes on with the
long ones, which take turns on one thread for each processor, at lower priority than the agent itself.
A run that sleeps, or has used more than its CPU share, is parked and holds no thread.

A run is always in exactly one place: in the queue of short or of long runs, parked, or having its turn.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.run import Run
from edgerm_executor_wasm.ticker import Ticker

log = logging.getLogger(__name__)

LONG_NICENESS: Final = 5
"""Added to that of the agent for the threads of long runs."""

SHORT: Final = 0
"""Number of the worker that serves short runs; those of long runs count from 1."""

REPORT_S: Final = 0.001
"""While more short runs wait for their turn, the ended ones are reported together this often: each
report wakes the event loop, and the two threads would take the interpreter lock from each other."""

JOIN_S: Final = 1.0
"""How long to wait for a thread to end; a slice is over within some milliseconds."""

STALE_PARKED: Final = 256
"""Parked runs that have been stopped and are still in the heap, before it is made anew."""


class _Stop:
    """Tells the thread of short runs, which alone knows the parked ones, that one is to be stopped."""

    def __init__(self, run: Run) -> None:
        self.run = run


class Workers:
    """Owns all threads that run guests.

    Parameters:
        host: whose runs they are.
        on_end: called in a worker thread with runs that have ended.
    """

    def __init__(self, host: Host, on_end: Callable[[list[Run]], None]) -> None:
        self._engine = host.engine
        self._on_end = on_end
        self._short: queue.SimpleQueue[Run | _Stop | None] = queue.SimpleQueue()
        self._long: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._parked: list[tuple[float, int, Run]] = []
        self._stale = 0
        self._ended: list[Run] = []
        self._report_at = 0.0
        self._order = itertools.count()
        self._polling: dict[int, bool] = {}
        self._lock = threading.Lock()
        self._long_threads: list[threading.Thread] = []
        self._long_idle = 0
        self._max_long = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
        self._ticker = Ticker(self._engine, self._busy)
        self._thread = threading.Thread(target=self._serve_short, name="wasm-short", daemon=True)
        self._thread.start()

    def submit(self, run: Run) -> None:
        """Give a new run its first turn soon."""
        self._enqueue(run)

    def stop(self, run: Run) -> None:
        """End a run at its next turn, which is now. Idempotent."""
        run.stopping = True
        self._engine.increment_epoch()
        self._short.put(_Stop(run))

    def close(self) -> None:
        """End all threads; runs that go on stay as they are. Blocks until running slices are over.

        A thread that is inside a file operation that does not return is left behind.
        """
        self._short.put(None)
        self._thread.join(JOIN_S)
        for _ in self._long_threads:
            self._long.put(None)
        for thread in self._long_threads:
            thread.join(JOIN_S)
        self._ticker.close()

    def _busy(self) -> bool:
        return True in self._polling.values()

    def _enqueue(self, run: Run) -> None:
        if not run.long:
            self._short.put(run)
            return
        with self._lock:
            if self._long_idle == 0 and len(self._long_threads) < self._max_long:
                number = len(self._long_threads) + 1
                thread = threading.Thread(target=self._serve_long, name=f"wasm-long-{number}", daemon=True)
                self._long_threads.append(thread)
                self._polling[number] = False
                thread.start()
        self._long.put(run)

    # --- the thread of short runs ---

    def _serve_short(self) -> None:
        self._polling[SHORT] = False
        while True:
            timeout_s = self._wake_parked()
            if self._ended and (self._short.empty() or time.monotonic() >= self._report_at):
                self._report()
            try:
                item = self._short.get(timeout=timeout_s)
            except queue.Empty:
                continue
            if item is None:
                self._report()
                return
            if isinstance(item, _Stop):
                self._stop_parked(item.run)
            elif item.park_until > time.monotonic() and not item.stopping:
                item.parked = True
                heapq.heappush(self._parked, (item.park_until, next(self._order), item))
            else:
                self._take_turn(item, SHORT)

    def _wake_parked(self) -> float | None:
        """Put those whose time has come back into the queues; return when to look again."""
        now = time.monotonic()
        while self._parked and self._parked[0][0] <= now:
            _, _, run = heapq.heappop(self._parked)
            if run.parked:
                run.parked = False
                self._enqueue(run)
            else:
                self._stale -= 1
        return self._parked[0][0] - now if self._parked else None

    def _report(self) -> None:
        ended, self._ended = self._ended, []
        self._on_end(ended)

    def _stop_parked(self, run: Run) -> None:
        if not run.parked:
            return  # Whoever has it, or gets it from a queue, sees that it is to be stopped.
        run.parked = False
        self._stale += 1
        if self._stale > STALE_PARKED and self._stale > len(self._parked) // 2:
            self._parked = [entry for entry in self._parked if entry[2].parked]
            heapq.heapify(self._parked)
            self._stale = 0
        self._take_turn(run, SHORT)

    # --- the threads of long runs ---

    def _serve_long(self) -> None:
        number = int(threading.current_thread().name.rpartition("-")[2])
        _lower_priority()
        while True:
            with self._lock:
                self._long_idle += 1
            run = self._long.get()
            with self._lock:
                self._long_idle -= 1
            if run is None:
                return
            self._take_turn(run, number)

    # --- both ---

    def _take_turn(self, run: Run, worker: int) -> None:
        if run.stopping:
            run.abort()
            self._note_end(run, worker)
            return
        self._polling[worker] = True
        self._ticker.wake()
        used_before = time.thread_time()
        ended = run.turn()
        used = time.thread_time() - used_before
        self._polling[worker] = False
        run.cpu_s += used
        if ended:
            self._note_end(run, worker)
            return
        now = time.monotonic()
        pause = run.share.charge(used, now)
        # A guest that does not sleep was interrupted at the end of its slice.
        run.long = run.uses_files or run.wake_at <= now
        run.park_until = max(run.wake_at, now + pause)
        if run.park_until > now:
            self._short.put(run)  # Only that thread parks.
        else:
            self._enqueue(run)

    def _note_end(self, run: Run, worker: int) -> None:
        if worker != SHORT:
            self._on_end([run])
            return
        if not self._ended:
            self._report_at = time.monotonic() + REPORT_S
        self._ended.append(run)


def _lower_priority() -> None:
    """Lower the calling thread's priority, where threads have one of their own (Linux)."""
    try:
        os.setpriority(
            os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + LONG_NICENESS
        )
    except (OSError, AttributeError):
        log.debug("threads keep the agent's priority")
