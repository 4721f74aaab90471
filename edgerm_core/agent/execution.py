"""One run, from fetching its blobs to giving everything back: the coroutine around an executor's verbs.

Whatever a driver, an executor or the disk raises becomes an event about this run and nothing else. An
executor that hangs is given up on after a named time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from edgerm_core.agent.blobs import BlobFetcher, BlobProblem
from edgerm_core.agent.devices import Devices
from edgerm_core.agent.effects import RecoverRun, StartRun
from edgerm_core.agent.environment import task_environment
from edgerm_core.agent.events import (
    RunCancelled,
    RunEnded,
    RunFetching,
    RunLost,
    RunNotStarted,
    RunProgress,
    RunRecovered,
    RunStarted,
)
from edgerm_core.agent.sandbox import Sandboxes
from edgerm_core.agents import AgentInfo
from edgerm_core.errors import ExecutorError, SpecError, TaskLost
from edgerm_core.ids import BlobId
from edgerm_core.interfaces import Executor, Fence, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.limits import PROGRESS_EVERY_S
from edgerm_core.messages import Launch
from edgerm_core.tasks import ExitResult, Reason, TaskState, Volume
from edgerm_core.values import NOT_PLAIN, is_plain

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 600.0
"""An executor may fetch an image of its own meanwhile; without a word for this long it hangs."""

STOP_TIMEOUT_S: Final = 30.0
"""Added to the grace period for `stop`, and the most that `destroy` may take."""

REPORT_TIMEOUT_S: Final = 5.0
"""After `stop` has returned `wait` must, too; after this long the run counts as ended without it."""

STATS_TIMEOUT_S: Final = 5.0
"""Figures that take longer are not worth waiting for."""

Post = Callable[
    [
        RunFetching
        | RunProgress
        | RunStarted
        | RunRecovered
        | RunNotStarted
        | RunCancelled
        | RunLost
        | RunEnded
    ],
    None,
]


class Workshop:
    """What runs are made with: shared by all of them.

    Attributes:
        executors: by name, the working ones and the others.
        blobs, sandboxes, devices: where a run's things come from.
        tasks: runs the coroutines.
        info: what the agent says about itself now.
        look_again: asks soon whether the executors still work.
    """

    def __init__(
        self,
        executors: Mapping[str, Executor],
        blobs: BlobFetcher,
        sandboxes: Sandboxes,
        devices: Devices,
        tasks: anyio.abc.TaskGroup,
        info: Callable[[], AgentInfo],
        look_again: Callable[[], None],
    ) -> None:
        self.executors = executors
        self.blobs = blobs
        self.sandboxes = sandboxes
        self.devices = devices
        self.tasks = tasks
        self.info = info
        self.look_again = look_again


class Execution:
    """One run.

    Parameters:
        workshop: what it is made with.
        order: what to do.
        post: takes the events that answer the order.
    """

    def __init__(self, workshop: Workshop, order: StartRun | RecoverRun, post: Post) -> None:
        self._shop = workshop
        self._order = order
        self._run = order.run
        self._launch: Launch = order.launch
        self._post = post
        self._executor = workshop.executors.get(order.launch.implementation.executor)
        self._fence = Fence(order.run.attempt, order.run.restarts)
        self._blobs: set[BlobId] = {file.blob for file in order.launch.files}
        if order.launch.implementation.blob is not None:
            self._blobs.add(order.launch.implementation.blob)
        self._handle: TaskHandle | None = None
        self._stop_grace_s: float | None = None
        self._starting: anyio.CancelScope | None = None
        self._progress_at = 0.0
        #: Waits until the last one is old enough.
        self._progress = ""
        self._waiting: anyio.CancelScope | None = None
        self._over: anyio.Event | None = None

    async def run(self) -> None:
        """Do it all. The last event is posted when everything is free again.

        Cancelled when the agent ends: then nothing is undone, so that runs which can survive do, and the
        executor's `close` sees to the others.
        """
        for blob in self._blobs:
            self._shop.blobs.cache.hold(blob)
        outcome: RunNotStarted | RunCancelled | RunLost | RunEnded | None
        if isinstance(self._order, StartRun):
            outcome = await self._start()
        else:
            outcome = await self._recover(self._order.handle)
        if outcome is None:
            outcome = await self._follow()
        if self._handle is not None:
            await self._destroy(self._handle)
        if self._launch.resources.devices:
            await self._shop.devices.release(self._launch.resources.devices, self._run.task_id, self._fence)
        for blob in self._blobs:
            self._shop.blobs.cache.let_go(blob)
        if self._over is not None:
            self._over.set()
        self._post(outcome)

    async def stats(self) -> TaskStats | None:
        """Return what the run uses now, or None if it is not running. Never raises."""
        if self._handle is None or self._waiting is None:
            return None
        try:
            with anyio.move_on_after(STATS_TIMEOUT_S):
                return await self._the_executor().stats(self._handle)
        except Exception as error:
            log.debug("%s: executor %s failed to say what it uses: %s", self._run, self._name, error)
        return None

    def stop(self, grace_s: float) -> None:
        """Ask the run to end. May be called again with a shorter grace period."""
        self._stop_grace_s = grace_s
        if self._handle is not None:
            self._shop.tasks.start_soon(self._stop, self._handle, grace_s)
        elif self._starting is not None:
            self._starting.cancel()

    def _stop_asked(self) -> bool:
        return self._stop_grace_s is not None

    # --- starting -----------------------------------------------------------------------------

    async def _start(self) -> RunNotStarted | RunCancelled | None:
        if self._stop_asked():
            return RunCancelled(self._run)
        problem: RunNotStarted | None = None
        with anyio.CancelScope() as self._starting:
            try:
                launch = await self._prepare()
                self._starting.deadline = anyio.current_time() + START_TIMEOUT_S
                sandbox = self._shop.sandboxes.open((self._run.task_id, self._run.attempt))
                sandbox.on_report = self._report_progress
                self._handle = await self._the_executor().start(launch, sandbox)
                check_handle(self._handle)
            except SpecError as error:
                problem = RunNotStarted(self._run, TaskState.ERROR, Reason.SPEC_INVALID, str(error))
            except BlobProblem as error:
                problem = RunNotStarted(self._run, TaskState.FAILED, error.reason, str(error))
            except ExecutorError as error:
                if error.reason == Reason.EXECUTOR_UNAVAILABLE:
                    self._shop.look_again()
                state = TaskState.DROPPED if error.reason in _NEVER_STARTED else TaskState.FAILED
                problem = RunNotStarted(self._run, state, error.reason, str(error), error.recoverable)
            except OSError as error:
                text = f"the task's files cannot be laid out: {error}"
                problem = RunNotStarted(self._run, TaskState.FAILED, Reason.LAUNCH_FAILED, text, True)
            except Exception as error:
                log.exception("%s: executor %s failed to start it", self._run, self._name)
                problem = self._broken("failed to start the task", error)
        self._starting = None
        if problem is not None or self._handle is not None:
            # With both, the run goes on under a handle that is useless: `run` destroys it.
            return problem
        if self._stop_asked():
            return RunCancelled(self._run)
        text = f"executor {self._name} did not start the task, nor say a word, for {START_TIMEOUT_S:.0f} s"
        return RunNotStarted(self._run, TaskState.FAILED, Reason.LAUNCH_FAILED, text, True)

    def _report_progress(self, text: str) -> None:
        if self._starting is None:
            return
        now = anyio.current_time()
        self._starting.deadline = now + START_TIMEOUT_S
        if self._progress:
            self._progress = text
        elif now >= self._progress_at + PROGRESS_EVERY_S:
            self._progress_at = now
            self._post(RunProgress(self._run, text))
        else:
            self._progress = text
            self._shop.tasks.start_soon(self._report_latest)

    async def _report_latest(self) -> None:
        await anyio.sleep_until(self._progress_at + PROGRESS_EVERY_S)
        text, self._progress = self._progress, ""
        if self._starting is not None:
            self._progress_at = anyio.current_time()
            self._post(RunProgress(self._run, text))

    async def _prepare(self) -> TaskLaunch:
        launch = self._launch
        shop = self._shop
        paths: dict[BlobId, Path] = {}
        if self._blobs:
            if any(blob not in shop.blobs.cache for blob in self._blobs):
                self._post(RunFetching(self._run))
            for blob in self._blobs:
                paths[blob] = await shop.blobs.get(blob)
        attachments = []
        if launch.resources.devices:
            attachments = await shop.devices.reserve(
                launch.resources.devices, self._run.task_id, self._fence
            )
        volumes: tuple[tuple[Volume, Path], ...] = ()
        if launch.files or launch.volumes:
            sandbox = shop.sandboxes.open((self._run.task_id, self._run.attempt))
            volumes = await anyio.to_thread.run_sync(
                sandbox.prepare, launch, paths, shop.sandboxes.volumes_dir
            )
        mounts = tuple(
            (Volume(inside), Path(host)) for each in attachments for host, inside in each.mounts.items()
        )
        module = launch.implementation.blob
        return TaskLaunch(
            self._run.task_id,
            self._run.attempt,
            self._run.restarts,
            launch.name,
            launch.implementation,
            paths[module] if module is not None else None,
            launch.resources,
            task_environment(launch, self._run.restarts, shop.info(), attachments),
            (*volumes, *mounts),
            launch.kill_grace_s,
            tuple(node for each in attachments for node in each.device_nodes),
        )

    async def _recover(self, saved: TaskHandle) -> RunLost | None:
        problem = ""
        self._shop.sandboxes.open((self._run.task_id, self._run.attempt))
        try:
            with anyio.move_on_after(START_TIMEOUT_S):
                if self._launch.resources.devices:
                    await self._shop.devices.reserve(
                        self._launch.resources.devices, self._run.task_id, self._fence
                    )
                self._handle = await self._the_executor().recover(saved)
            if self._handle is None:
                problem = f"executor {self._name} did not recover the task in time"
        except TaskLost as error:
            problem = str(error)
        except ExecutorError as error:
            problem = f"executor {self._name} could not recover the task: {error}"
        except Exception as error:
            log.exception("%s: executor %s failed to recover it", self._run, self._name)
            problem = self._broken("failed to recover the task", error).message
        if self._handle is not None:
            return None
        if self._executor is not None:
            # It may run after all, and a second start must not run beside it.
            await self._destroy(saved)
        return RunLost(self._run, problem)

    def _the_executor(self) -> Executor:
        if self._executor is None:
            raise ExecutorError(
                f"this agent has no executor {self._name!r} any more", reason=Reason.EXECUTOR_UNAVAILABLE
            )
        return self._executor

    # --- running, stopping --------------------------------------------------------------------

    async def _follow(self) -> RunEnded:
        assert self._handle is not None
        answer = RunStarted if isinstance(self._order, StartRun) else RunRecovered
        self._post(answer(self._run, self._handle))
        if self._stop_grace_s is not None:
            # Asked for while the executor was starting it.
            self.stop(self._stop_grace_s)
        result = ExitResult(
            False, Reason.LAUNCH_FAILED, f"executor {self._name} did not report how it ended"
        )
        with anyio.CancelScope() as self._waiting:
            try:
                result = _checked(await self._the_executor().wait(self._handle))
            except ExecutorError as error:
                if error.reason == Reason.EXECUTOR_UNAVAILABLE:
                    self._shop.look_again()
                result = ExitResult(False, error.reason, str(error))
            except Exception as error:
                log.exception("%s: executor %s failed to follow it", self._run, self._name)
                broken = self._broken("failed to follow the task", error)
                result = ExitResult(False, broken.reason, broken.message)
        return RunEnded(self._run, result)

    async def _stop(self, handle: TaskHandle, grace_s: float) -> None:
        if self._over is None:
            self._over = anyio.Event()
        with anyio.move_on_after(grace_s + STOP_TIMEOUT_S):
            try:
                await self._the_executor().stop(handle, grace_s)
            except Exception:
                log.exception("%s: executor %s failed to stop it", self._run, self._name)
                await anyio.sleep(grace_s)
        with anyio.move_on_after(REPORT_TIMEOUT_S):
            await self._over.wait()
        if not self._over.is_set() and self._waiting is not None:
            # `destroy` follows, and ends what is left.
            self._waiting.cancel()

    async def _destroy(self, handle: TaskHandle) -> None:
        try:
            with anyio.move_on_after(STOP_TIMEOUT_S) as scope:
                await self._the_executor().destroy(handle)
            if scope.cancelled_caught:
                log.error("%s: executor %s did not clean up after it in time", self._run, self._name)
        except Exception:
            log.exception("%s: executor %s failed to clean up after it", self._run, self._name)

    @property
    def _name(self) -> str:
        return self._launch.implementation.executor

    def _broken(self, what: str, error: Exception) -> RunNotStarted:
        text = f"executor {self._name} {what}: {type(error).__name__}: {error}"
        return RunNotStarted(self._run, TaskState.FAILED, Reason.LAUNCH_FAILED, text)


def check_handle(handle: TaskHandle) -> None:
    """Check that a handle can be saved and read back.

    Raises:
        ExecutorError: if its data is not plain.
    """
    if not is_plain(handle.data):
        raise ExecutorError(
            f"executor {handle.executor} gave a task handle that cannot be saved: {NOT_PLAIN}"
        )


def _checked(result: object) -> ExitResult:
    """Return what `wait` returned.

    Raises:
        TypeError: if it is nothing of the kind.
    """
    if not isinstance(result, ExitResult):
        raise TypeError(f"it returned {type(result).__name__}, expected an ExitResult")
    return result


_NEVER_STARTED: Final = frozenset({Reason.EXECUTOR_UNAVAILABLE, Reason.RESOURCES_UNAVAILABLE})
"""Reasons with which a task is DROPPED and not FAILED: nothing is wrong with it."""
