"""The executor: what core asks for, told to the engine, and how runs end, told to core."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from edgerm_core.agents import Fingerprint
from edgerm_core.errors import ExecutorError, TaskLost
from edgerm_core.interfaces import Executor, Sandbox, TaskHandle, TaskLaunch, TaskStats
from edgerm_core.results import read_result
from edgerm_core.tasks import ExitResult, Reason
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.config import DockerConfig, find_socket, find_state_dir
from edgerm_executor_docker.events import ContainerState
from edgerm_executor_docker.exits import SIGNAL_BASE, ExitRecord, exit_result
from edgerm_executor_docker.fingerprint import (
    NAME,
    fingerprint_absence,
    fingerprint_engine,
    warnings,
)
from edgerm_executor_docker.identity import read_identity, why_not_kept
from edgerm_executor_docker.launcher import Launcher
from edgerm_executor_docker.pulls import Pulls
from edgerm_executor_docker.run import Run, read_handle
from edgerm_executor_docker.stats import engine_stats, read_stats
from edgerm_executor_docker.streams import EngineGone, EngineRefused
from edgerm_executor_docker.watch import Watch

log = logging.getLogger(__name__)

OUTPUT_PATIENCE_S: Final = 10.0
"""After a container's end, for the rest of its output. It comes at once unless the machine is very busy."""

KILL_AGAIN_S: Final = 5.0
"""Between looks at a container that should have ended."""

ENGINE_RETRY_S: Final = 1.0
"""Between tries to stop a container while the engine is gone."""

ENDED_BY_ENGINE: Final = frozenset({SIGNAL_BASE + 9, SIGNAL_BASE + 15, 255})
"""Exit codes of containers that an engine ends with itself, or finds ended after a crash of the machine."""


class DockerExecutor(Executor):
    """Runs containers.

    Parameters:
        config: `[executor.docker]`.

    Raises:
        ConfigError: if `DOCKER_HOST` names an engine on another machine.
    """

    name = NAME

    def __init__(self, config: DockerConfig) -> None:
        find_socket(config)
        self._config = config
        self._state_dir = find_state_dir(config)
        self._identity = ""
        self._background = Background()
        self._engine = Engine(lambda: find_socket(config), config.call_timeout_s)
        self._watch = Watch(self._engine, self._background, self._read_identity, config.engine_patience_s)
        pulls = Pulls(config, self._engine, self._background)
        self._launcher = Launcher(config, self._engine, self._watch, pulls, self._read_identity)
        self._warned: list[str] = []

    async def fingerprint(self) -> Fingerprint:
        try:
            await self._engine.probe()
            facts = await self._watch.current_facts()
            problem = await self._engine.in_thread(lambda: why_not_kept(self._state_dir))
        except EngineGone as error:
            return fingerprint_absence(str(error))
        found = warnings(facts)
        if found != self._warned:
            self._warned = found
            for warning in found:
                log.warning("executor docker: %s", warning)
        return fingerprint_absence(problem) if problem else fingerprint_engine(facts)

    async def start(self, launch: TaskLaunch, sandbox: Sandbox) -> TaskHandle:
        try:
            return await self._launcher.start(launch, sandbox)
        except EngineGone as error:
            raise ExecutorError(str(error), reason=Reason.EXECUTOR_UNAVAILABLE, recoverable=True) from error
        except OSError as error:
            raise ExecutorError(
                f"the task's directories cannot be prepared: {error}", recoverable=True
            ) from error

    async def wait(self, handle: TaskHandle) -> ExitResult:
        run = self._run(handle)
        await run.ended.wait()
        await run.output.finish(OUTPUT_PATIENCE_S)
        if run.result is None:
            assert run.record is not None
            result, note = read_result(Path(run.data.result_path))
            notes = [note] if note else []
            if run.output.lost_bytes:
                notes.append(
                    f"{run.output.lost_bytes} bytes of its output could not be kept: {run.output.lost_why}"
                )
            run.result = exit_result(run.record, run.data.mem_limit_bytes, result, tuple(notes))
        return run.result

    async def stop(self, handle: TaskHandle, grace_s: float) -> None:
        run = self._run(handle)
        run.stopping = True
        deadline = anyio.current_time() + grace_s
        if grace_s > 0 and not run.ended.is_set():
            await self._signal(run, run.data.stop_signal or "SIGTERM", deadline)
            with anyio.move_on_after(deadline - anyio.current_time()):
                await run.ended.wait()
        while not run.ended.is_set():
            run.killed = True
            await self._signal(run, "SIGKILL", None)
            with anyio.move_on_after(KILL_AGAIN_S):
                await run.ended.wait()

    async def destroy(self, handle: TaskHandle) -> None:
        try:
            data = read_handle(handle)
        except TaskLost:
            return
        run = self._watch.runs.get(data.container)
        if run is not None:
            run.stopping = run.killed = True
            await run.output.close()
        await self._watch.remove(data.container)
        self._watch.forget(data.container)

    async def recover(self, handle: TaskHandle) -> TaskHandle:
        data = read_handle(handle)
        try:
            await self._watch.ready(self._config.engine_patience_s)
            run = self._watch.follow(data)
            state = await self._watch.inspect(data.container)
        except EngineGone as error:
            self._watch.runs.pop(data.container, None)
            raise TaskLost(f"the container engine has not come back: {error}") from error
        problem = self._lost(state)
        if state is None or problem:
            self._watch.runs.pop(data.container, None)
            raise TaskLost(problem)
        if state.ended:
            run.end(self._absent_end(run, state))
        run.output.take_up(data.container, ended=state.ended)
        return handle

    async def sweep(self, kept: Sequence[TaskHandle]) -> None:
        containers = set()
        for handle in kept:
            try:
                containers.add(read_handle(handle).container)
            except TaskLost:
                continue
        await self._watch.sweep(containers)

    async def stats(self, handle: TaskHandle) -> TaskStats:
        try:
            run = self._run(handle)
            if run.ended.is_set():
                return TaskStats()
            if not run.pid:
                state = await self._watch.inspect(run.data.container)
                run.pid = state.pid if state is not None else 0
            own_network = run.data.network not in ("none", "host")
            found = read_stats(run.data.container, run.pid, own_network) if run.pid else None
            if found is not None:
                return found
            raw = await self._engine.call(
                lambda client: client.stats(run.data.container, stream=False, one_shot=True)
            )
            return engine_stats(raw)
        except (EngineGone, EngineRefused, TaskLost):
            return TaskStats()

    async def close(self) -> None:
        await self._background.close()
        self._engine.close()

    # --- helpers ------------------------------------------------------------------------------

    def _run(self, handle: TaskHandle) -> Run:
        """Return the run of a handle.

        Raises:
            TaskLost: if this process knows nothing of it.
        """
        data = read_handle(handle)
        run = self._watch.runs.get(data.container)
        if run is None:
            raise TaskLost(f"container {data.name} was neither started nor recovered by this agent process")
        return run

    def _absent_end(self, run: Run, state: ContainerState) -> ExitRecord:
        """Return how a run ended while the agent was away: by itself, or with the engine or the machine."""
        why = self._watch.why_ended(run.data)
        if why and state.record.code in ENDED_BY_ENGINE:
            return ExitRecord(lost=why)
        return state.record

    async def _signal(self, run: Run, signal: str, deadline: float | None) -> None:
        """Send a signal; note the end of a run that cannot get one. Tries again while the engine is gone.

        Parameters:
            deadline: until when it tries; None: as long as it takes.
        """
        while not run.ended.is_set() and (deadline is None or anyio.current_time() < deadline):
            try:
                await self._engine.call(lambda client: client.kill(run.data.container, signal))
                return
            except EngineRefused as error:
                log.debug("container %s cannot be sent %s: %s", run.data.name, signal, error)
                try:
                    await self._watch.check(run)
                    return
                except EngineGone:
                    pass
            except EngineGone:
                pass
            with anyio.move_on_after(ENGINE_RETRY_S):
                await run.ended.wait()

    def _lost(self, state: ContainerState | None) -> str:
        """Return why a run cannot be taken up; empty: it can."""
        if state is None:
            return "its container is gone: somebody has removed it while the agent was away"
        if state.agent != self._read_identity():
            return "its container belongs to another agent"
        if not state.ended and state.status not in ("running", "paused", "restarting"):
            return f"its container was made and never started (it is {state.status})"
        return ""

    def _read_identity(self) -> str:
        if not self._identity:
            self._identity = read_identity(self._state_dir)
        return self._identity
