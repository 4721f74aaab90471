"""One run on a simulated agent, from fetching its blob to giving everything back.

The same steps in the same order as `agent.execution.Execution`, with timers in place of coroutines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from edgerm_core.agent.effects import RecoverRun, StartRun
from edgerm_core.agent.events import (
    Event,
    RunCancelled,
    RunEnded,
    RunFetching,
    RunLost,
    RunNotStarted,
    RunProgress,
    RunRecovered,
    RunStarted,
)
from edgerm_core.agent.execution import REPORT_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S
from edgerm_core.interfaces import TaskHandle
from edgerm_core.limits import PROGRESS_EVERY_S
from edgerm_core.tasks import ExitResult, Reason, TaskState
from edgerm_core.testing.simulator.executors import Host, RealRun
from edgerm_core.testing.simulator.world import Timer

RECOVER_S: Final = 0.05
DESTROY_S: Final = 0.01
FETCH_RETRY_S: Final = 1.0


class Workshop(Protocol):
    """What runs are made with."""

    @property
    def host(self) -> Host: ...
    @property
    def cache(self) -> set[bytes]: ...
    def can_fetch(self, blob: bytes) -> bool:
        """Return whether that blob can come now."""
        ...

    def slots(self, device: str) -> int: ...
    def post_run(self, event: Event, *, over: bool) -> None: ...


class Execution:
    """One run."""

    def __init__(self, shop: Workshop, order: StartRun | RecoverRun) -> None:
        self._shop = shop
        self._host = shop.host
        self._world = shop.host.world
        self._order = order
        self._run = order.run
        self._key = (int(order.run.task_id), order.run.attempt, order.run.restarts)
        self._launch = order.launch
        self._behaviour = self._host.behaviour(self._key, order.launch)
        self._real: RealRun | None = None
        self._handle: TaskHandle | None = None
        self._starting = False
        self._stop_grace_s: float | None = None
        self._dead = False
        self._later(0.0, self._begin)

    def stop(self, grace_s: float) -> None:
        """Ask the run to end. May be called again with a shorter grace period."""
        self._stop_grace_s = grace_s
        if self._handle is not None:
            self._stop(grace_s)
        elif self._starting:
            self._starting = False
            self._not_started(RunCancelled(self._run))

    def die(self) -> None:
        """The agent process is gone."""
        self._dead = True

    def _later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        def when_alive() -> None:
            if not self._dead:
                call()

        return self._world.after(delay_s, when_alive)

    def _begin(self) -> None:
        if isinstance(self._order, RecoverRun):
            self._reserve()
            self._later(RECOVER_S, self._recover)
        elif self._stop_grace_s is not None:
            self._shop.post_run(RunCancelled(self._run), over=True)
        else:
            self._starting = True
            self._fetch(first=True)

    # --- starting -----------------------------------------------------------------------------

    def _while_starting(self, delay_s: float, call: Callable[[], None]) -> None:
        def still() -> None:
            if self._starting:
                call()

        self._later(delay_s, still)

    def _fetch(self, *, first: bool) -> None:
        blob = self._launch.implementation.blob
        if blob is None or blob in self._shop.cache:
            self._prepare()
            return
        if first:
            self._shop.post_run(RunFetching(self._run), over=False)
            self._while_starting(self._behaviour.fetch_s, lambda: self._fetch(first=False))
        elif self._shop.can_fetch(blob):
            self._shop.cache.add(blob)
            self._prepare()
        else:
            self._while_starting(FETCH_RETRY_S, lambda: self._fetch(first=False))

    def _prepare(self) -> None:
        behaviour = self._behaviour
        if not self._reserve():
            text = "a device is no longer there"
            self._fail(TaskState.DROPPED, Reason.RESOURCES_UNAVAILABLE, text)
        elif self._launch.implementation.executor in self._host.sick:
            self._fail(TaskState.DROPPED, Reason.EXECUTOR_UNAVAILABLE, "the executor does not work")
        elif behaviour.start == "spec":
            self._fail(TaskState.ERROR, Reason.SPEC_INVALID, "its options make no sense")
        else:
            self._real = self._host.begin(self._key, self._launch)
            if behaviour.start == "hangs":
                text = "it has been starting for too long"
                self._while_starting(START_TIMEOUT_S, lambda: self._fail_start(text))
            elif behaviour.start != "well":
                self._while_starting(behaviour.start_s, lambda: self._fail_start("no such thing"))
            else:
                self._while_starting(behaviour.start_s, self._started)
                if behaviour.start_s > PROGRESS_EVERY_S:
                    self._while_starting(PROGRESS_EVERY_S, self._progress)

    def _progress(self) -> None:
        self._shop.post_run(RunProgress(self._run, "some of it is here"), over=False)
        self._while_starting(PROGRESS_EVERY_S, self._progress)

    def _fail_start(self, text: str) -> None:
        recoverable = self._behaviour.start != "fails-for-good"
        self._fail(TaskState.FAILED, Reason.LAUNCH_FAILED, text, recoverable=recoverable)

    def _fail(self, state: TaskState, reason: str, text: str, *, recoverable: bool = False) -> None:
        self._starting = False
        self._not_started(RunNotStarted(self._run, state, reason, text, recoverable))

    def _not_started(self, outcome: RunNotStarted | RunCancelled) -> None:
        if self._real is not None:
            self._host.destroy(self._real)
        self._release()
        self._shop.post_run(outcome, over=True)

    def _started(self) -> None:
        assert self._real is not None
        self._starting = False
        self._handle = self._host.go(self._real)
        self._shop.post_run(RunStarted(self._run, self._handle), over=False)
        self._follow(self._real)

    def _recover(self) -> None:
        assert isinstance(self._order, RecoverRun)
        real = self._host.find(self._order.handle)
        if real is None:
            self._release()
            self._shop.post_run(RunLost(self._run, "nothing of it is left"), over=True)
            return
        self._real = real
        self._handle = self._order.handle
        self._shop.post_run(RunRecovered(self._run, self._handle), over=False)
        self._follow(real)

    # --- running, stopping --------------------------------------------------------------------

    def _follow(self, real: RealRun) -> None:
        if real.result is not None:
            self._ended(real.result)
            return
        real.on_end = self._ended
        if self._stop_grace_s is not None:
            self._stop(self._stop_grace_s)

    def _stop(self, grace_s: float) -> None:
        assert self._real is not None
        self._host.stop(self._real, grace_s)
        if self._behaviour.deaf:
            self._later(grace_s + STOP_TIMEOUT_S + REPORT_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        if self._real is not None and self._real.on_end is not None:
            self._real.on_end = None
            text = f"executor {self._launch.implementation.executor} did not report how it ended"
            self._ended(ExitResult(False, Reason.LAUNCH_FAILED, text))

    def _ended(self, result: ExitResult) -> None:
        def over() -> None:
            assert self._real is not None
            self._host.destroy(self._real)
            self._release()
            self._shop.post_run(RunEnded(self._run, result), over=True)

        self._later(DESTROY_S, over)

    # --- devices ------------------------------------------------------------------------------

    def _reserve(self) -> bool:
        for device in sorted(self._launch.resources.devices):
            if not self._host.reserve(device, self._shop.slots(device), self._key):
                self._release()
                return False
        return True

    def _release(self) -> None:
        for device in self._launch.resources.devices:
            self._host.release(device, self._key)
