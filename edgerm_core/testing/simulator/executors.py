"""The machine below an agent: its runs, its devices, its clock, its power.

A `Host` outlives the agent process. It knows what really runs, which is what the checks compare the books
with. Two executors work on it: `process` tasks belong to a keeper and survive the agent process, `wasm`
tasks live inside it and end with it. Nothing survives the machine.

What a run does is written in its implementation's options (`Behaviour`), so that a story can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from edgerm_core.interfaces import TaskHandle
from edgerm_core.messages import Launch
from edgerm_core.resources import EMPTY, Resources
from edgerm_core.tasks import ExitResult, Reason
from edgerm_core.testing.simulator.world import EPOCH, Failure, Timer, World

SURVIVES: Final = {"process": True, "wasm": False}
"""Executor to whether its runs outlive the agent process."""


class Behaviour(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run does.

    Attributes:
        start_s: how long its start takes.
        start: `well`, or what goes wrong: `fails`, `fails-for-good`, `spec`, `hangs`.
        run_s: how long it runs; None: until it is stopped.
        end: `well`, `badly` or `trap`.
        stop_s: how long it takes to end when it is asked to.
        deaf: the executor's `stop` never returns; only `destroy` ends the run.
        random_exit_s: mean time to an end that nobody ordered; 0: none.
        fetch_s: how long its blob takes to come, if it has one.
    """

    start_s: float = 0.2
    start: str = "well"
    run_s: float | None = 10.0
    end: str = "well"
    stop_s: float = 0.1
    deaf: bool = False
    random_exit_s: float = 0.0
    fetch_s: float = 2.0

    def options(self) -> dict[str, Any]:
        """Return it as an implementation's options."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if value is not None} | (
            {"service": True} if self.run_s is None else {}
        )

    @classmethod
    def of(cls, options: dict[str, Any]) -> Behaviour:
        """Read it back."""
        plain = {name: value for name, value in options.items() if name != "service"}
        if options.get("service"):
            plain["run_s"] = None
        return msgspec.convert(plain, cls)


class RealRun:
    """One run as it really is.

    Attributes:
        key: task id, attempt, restarts.
        pid: another one for each start.
        result: how it ended; None while it lives.
    """

    def __init__(
        self,
        key: tuple[int, int, int],
        pid: int,
        launch: Launch,
        started_at: float,
        behaviour: Behaviour,
    ) -> None:
        self.key = key
        self.pid = pid
        self.launch = launch
        self.started_at = started_at
        self.executor = launch.implementation.executor
        self.behaviour = behaviour
        self.result: ExitResult | None = None
        self.up = False
        self.timers: list[Timer] = []
        self.on_end: Callable[[ExitResult], None] | None = None

    @property
    def live(self) -> bool:
        """Whether it runs, or has begun to."""
        return self.result is None

    def __str__(self) -> str:
        task_id, attempt, restarts = self.key
        return f"t{task_id}.{attempt}+{restarts}"


class Host:
    """A machine.

    Attributes:
        name: the agent's.
        boots: how often it was switched on.
        wall_offset_s: by how much its wall clock is off.
        runs: all runs since it was last switched on, that have not been destroyed.
        history: every run that ever was here, by task and attempt, in the order of their starts.
        devices: slots by device id; holders by device id.
        sick: executors that do not work now.
    """

    def __init__(self, world: World, name: str, watch: Callable[[Host, RealRun], None]) -> None:
        self.world = world
        self.name = name
        self.boots = 1
        self.up = True
        self.wall_offset_s = 0.0
        self.runs: dict[int, RealRun] = {}
        self.history: dict[tuple[int, int], list[RealRun]] = {}
        self.holders: dict[str, dict[tuple[int, int, int], None]] = {}
        self.fences: dict[tuple[str, int], tuple[int, int]] = {}
        self.sick: set[str] = set()
        self.unplugged: set[str] = set()
        self._watch = watch
        self._pids = 0

    # --- executors ----------------------------------------------------------------------------

    def behaviour(self, key: tuple[int, int, int], launch: Launch) -> Behaviour:
        """Return what a run does: here, what its options say."""
        return Behaviour.of(launch.implementation.options)

    def survives(self, executor: str) -> bool:
        """Return whether an executor's runs outlive the agent process."""
        return SURVIVES[executor]

    def begin(self, key: tuple[int, int, int], launch: Launch) -> RealRun:
        """A start has begun: from here on the run may use what it was granted."""
        self._pids += 1
        run = RealRun(key, self._pids, launch, self.world.now, self.behaviour(key, launch))
        self.runs[run.pid] = run
        self.history.setdefault(key[:2], []).append(run)
        self._watch(self, run)
        return run

    def go(self, run: RealRun) -> TaskHandle:
        """The start is through: the run goes its way."""
        run.up = True
        behaviour = run.behaviour
        luck = self.world.luck(f"run/{run.launch.name}/{run.launch.index}/{run.key[1:]}")
        if behaviour.run_s is not None:
            result = _RESULTS[behaviour.end]
            if behaviour.end == "well":
                result = msgspec.structs.replace(result, result=str(run).encode())
            run.timers.append(self.world.after(behaviour.run_s, lambda: self._end(run, result)))
        if behaviour.random_exit_s:
            after_s = luck.expovariate(1 / behaviour.random_exit_s)
            died = ExitResult(False, Reason.SIGNALED, "killed by signal 9", signal=9)
            run.timers.append(self.world.after(after_s, lambda: self._end(run, died)))
        return TaskHandle(run.executor, data={"pid": run.pid, "run": str(run)})

    def find(self, handle: TaskHandle) -> RealRun | None:
        """Return the run a saved handle names, if anything of it is left."""
        run = self.runs.get(handle.data["pid"])
        return run if run is not None and run.up and handle.data["run"] == str(run) else None

    def stop(self, run: RealRun, grace_s: float) -> None:
        """Ask a run to end, and end it after the grace period."""
        if run.result is None and not run.behaviour.deaf:
            stopped = ExitResult(False, Reason.SIGNALED, "stopped", signal=15)
            after_s = min(grace_s, run.behaviour.stop_s)
            run.timers.append(self.world.after(after_s, lambda: self._end(run, stopped)))

    def destroy(self, run: RealRun) -> None:
        """End a run at once, and forget it."""
        self._end(run, ExitResult(False, Reason.SIGNALED, "destroyed", signal=9), quietly=True)
        self.runs.pop(run.pid, None)

    def sweep(self, kept: list[TaskHandle]) -> None:
        """End what an earlier agent process started and did not note."""
        wanted = {handle.data["pid"] for handle in kept}
        for run in list(self.runs.values()):
            if run.pid not in wanted:
                self.destroy(run)

    def _end(self, run: RealRun, result: ExitResult, *, quietly: bool = False) -> None:
        if run.result is not None:
            return
        run.result = result
        for timer in run.timers:
            timer.cancel()
        if self.world.telling:
            self.world.tell(self.name, f"{run} ended: {result.message or result.reason}")
        on_end, run.on_end = run.on_end, None
        if on_end is not None and not quietly:
            on_end(result)

    # --- devices ------------------------------------------------------------------------------

    def reserve(self, device: str, slots: int, key: tuple[int, int, int]) -> bool:
        """Hand a slot to a run; return whether there was one. As a careful driver does it.

        Raises:
            Failure: if a smaller fence follows a larger one of the same task.
        """
        if device in self.unplugged:
            return False
        task_id, fence = key[0], key[1:]
        seen = self.fences.get((device, task_id), (0, 0))
        if fence < seen:
            raise Failure(f"{self.name}: {device} is asked for t{task_id} with fence {fence} after {seen}")
        self.fences[device, task_id] = fence
        holders = self.holders.setdefault(device, {})
        if key not in holders and len(holders) >= slots:
            raise Failure(
                f"{self.name}: {device} has {slots} slots; {key} wants one beside {list(holders)}"
            )
        holders[key] = None
        return True

    def release(self, device: str, key: tuple[int, int, int]) -> None:
        """Take a slot back. Idempotent."""
        self.holders.get(device, {}).pop(key, None)

    # --- the machine --------------------------------------------------------------------------

    def live(self) -> list[RealRun]:
        """Return the runs that live."""
        return [run for run in self.runs.values() if run.live]

    def used(self) -> Resources:
        """Return what they may use, all together."""
        total = EMPTY
        for run in self.live():
            total = total + run.launch.resources
        return total

    def agent_died(self) -> None:
        """The agent process is gone, and with it what lives inside it and every half-made start."""
        for run in list(self.runs.values()):
            run.on_end = None
            if not self.survives(run.executor):
                self.destroy(run)
        self.holders.clear()

    def power_off(self) -> None:
        """Everything on it is gone."""
        self.up = False
        for run in list(self.runs.values()):
            run.on_end = None
            self.destroy(run)
        self.runs.clear()
        self.holders.clear()
        self.fences.clear()

    def power_on(self) -> None:
        """It starts anew."""
        self.up = True
        self.boots += 1

    def wall(self) -> float:
        """Return what its wall clock says."""
        return EPOCH + self.wall_offset_s + self.world.now


_RESULTS: Final = {
    "well": ExitResult(True, Reason.EXITED, exit_code=0),
    "badly": ExitResult(False, Reason.EXIT_CODE, "exit code 3", exit_code=3),
    "trap": ExitResult(False, Reason.TRAP, "unreachable executed"),
}
