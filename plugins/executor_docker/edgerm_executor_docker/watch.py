"""Hears how the agent's containers fare, over one connection for all of them, and looks for itself whenever
something may have been missed.

Level-triggered: what the engine lists is compared with what is known. What ended meanwhile is noted, what
runs is copied from again, and what nobody knows is removed.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio

from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.events import (
    ContainerState,
    Happening,
    events_query,
    label_filter,
    read_event,
    read_state,
)
from edgerm_executor_docker.exits import SIGNAL_BASE, ExitRecord
from edgerm_executor_docker.facts import EngineFacts, read_facts, read_mounts
from edgerm_executor_docker.instance import boot_id, why_ended
from edgerm_executor_docker.oom import oom_kills
from edgerm_executor_docker.output import CatchUps, Output
from edgerm_executor_docker.request import named_by_labels
from edgerm_executor_docker.run import Run, RunData
from edgerm_executor_docker.streams import EngineGone, EngineRefused, EngineStream

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 10.0
"""Between tries to reach an engine that is gone: doubles from the first to the last."""

LOOK_EVERY_S: Final = 60.0
"""How often the engine's list is looked at although nothing seems to be missed."""

CONNECT_PATIENCE_S: Final = 10.0
"""How long a call waits for a connection that is being made."""

FACTS_KEEP_S: Final = 600.0
"""Facts change with the engine's configuration, that is with a restart; Podman takes a second to tell."""

GOING_DOWN_S: Final = 5.0
"""For the answer of an engine that tells of an end. One that is being stopped gives none: Docker closes its
door first, ends its containers, and breaks off the connections it has last."""

SIGKILL_CODE: Final = SIGNAL_BASE + 9


class Watch:
    """The runs of one agent.

    Parameters:
        agent: returns whose containers; raises OSError if that cannot be known.
        patience_s: how long runs wait for an engine that is gone before they count as lost.

    Attributes:
        runs: by container id; the ended ones too, until they are destroyed.
        starting: names of containers that are being made.
        facts: what the engine said about itself when it was last reached.
        boot, instance: on which boot of the machine, and which run of the engine that was.
    """

    def __init__(
        self, engine: Engine, background: Background, agent: Callable[[], str], patience_s: float
    ) -> None:
        self._engine = engine
        self._background = background
        self._agent = agent
        self._patience_s = patience_s
        self._catch_ups = CatchUps()
        self.runs: dict[str, Run] = {}
        self.starting: set[str] = set()
        self.facts: EngineFacts | None = None
        self.boot = ""
        self.instance = ""
        self._connection = secrets.token_hex(8)
        self._facts_at = 0.0
        self._kept: set[str] | None = None
        self._started = False
        self._connected = False
        self._problem: EngineGone | None = None
        self._changed = anyio.Event()
        self._hurry = anyio.Event()

    # --- for the executor ---------------------------------------------------------------------

    async def ready(self, patience_s: float = CONNECT_PATIENCE_S) -> EngineFacts:
        """Return the engine's facts once containers are being watched.

        Raises:
            EngineGone: if the engine cannot be reached now, or not within `patience_s` where it is longer.
        """
        if not self._started:
            self._started = True
            self._background.spawn(self._run())
        waits = patience_s > CONNECT_PATIENCE_S
        tried = False
        with anyio.move_on_after(patience_s):
            while not self._connected:
                if tried and not waits and self._problem is not None:
                    raise self._problem
                tried = True
                if not waits:
                    self._hurry.set()
                await self._changed.wait()
            assert self.facts is not None
            return self.facts
        raise self._problem or EngineGone("the engine does not answer")

    @contextlib.asynccontextmanager
    async def making(self, name: str) -> AsyncIterator[None]:
        """Protect a container of that name, not yet a run, from being removed as unknown."""
        self.starting.add(name)
        try:
            yield
        finally:
            self.starting.discard(name)

    async def sweep(self, kept: set[str]) -> None:
        """Remove the agent's containers that are neither in `kept` nor runs, now or when it can be done."""
        self._kept = kept
        try:
            await self.ready()
            await self._look()
        except (EngineGone, EngineRefused, OSError) as error:
            log.warning("containers of earlier runs are removed once the engine is back: %s", error)

    def follow(self, data: RunData) -> Run:
        """Return the run of a container, watched from now on. Idempotent."""
        run = self.runs.get(data.container)
        if run is None:
            output = Output(
                self._engine,
                self._background,
                self._catch_ups,
                data.log_dir,
                data.log_limit_bytes,
                (data.stdout_base, data.stderr_base),
            )
            run = self.runs[data.container] = Run(data, output)
        return run

    def forget(self, container: str) -> None:
        """The run has been destroyed: what is left of it is removed as unknown."""
        self.runs.pop(container, None)
        if self._kept is not None:
            self._kept.discard(container)

    async def check(self, run: Run) -> ContainerState | None:
        """Ask the engine how a run is; note its end. None: it is not there any more.

        Raises:
            EngineGone: if the engine does not answer.
        """
        state = await self.inspect(run.data.container)
        if state is None:
            run.end(ExitRecord(lost="its container is gone: somebody else has removed it"))
        elif state.ended:
            why = self.why_ended(run.data)
            run.end(ExitRecord(lost=why) if why else self._judged(run, state.record))
        return state

    async def inspect(self, container: str) -> ContainerState | None:
        """Ask the engine how a container is; None: it is not there.

        Raises:
            EngineGone: if the engine does not answer.
        """
        try:
            return read_state(await self._engine.call(lambda client: client.inspect_container(container)))
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise EngineGone(f"the engine cannot say how container {container[:12]} is: {error}") from error

    async def current_facts(self) -> EngineFacts:
        """Return the engine's facts, once it has shown that it answers.

        Raises:
            EngineGone: if the engine does not answer.
        """
        if self.facts is None or time.monotonic() - self._facts_at > FACTS_KEEP_S:
            return await self.read_facts()
        try:
            await self._engine.call(lambda client: client.ping())
        except EngineRefused as error:
            raise EngineGone(f"the engine is there but does not work: {error}") from error
        return self.facts

    async def read_facts(self) -> EngineFacts:
        """Ask the engine about itself.

        Raises:
            EngineGone: if the engine does not answer.
        """
        try:
            info, version = await self._engine.call(lambda client: (client.info(), client.version()))
        except EngineRefused as error:
            raise EngineGone(f"the engine does not say what it is: {error}") from error
        self.boot = await self._engine.in_thread(boot_id)
        self.instance = await self._engine.instance() or self._connection
        self.facts = read_facts(info, version, read_mounts())
        self._facts_at = time.monotonic()
        return self.facts

    def why_ended(self, data: RunData) -> str:
        """Return what has ended a container that runs no more; empty: nothing but itself."""
        survives_restart = self.facts is not None and self.facts.survives_restart
        return why_ended(data.boot, data.engine, self.boot, self.instance, survives_restart)

    # --- the connection -----------------------------------------------------------------------

    async def _run(self) -> None:
        gone_since: float | None = None
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._engine.probe()
                stream = await self._engine.stream("GET", "/events", events_query(self._agent()))
                try:
                    # Where the engine cannot be told from the next one, each connection counts as another.
                    self._connection = secrets.token_hex(8)
                    await self.read_facts()
                    await self._look()
                    self._set_connected(True)
                    gone_since, retry_s = None, FIRST_RETRY_S
                    await self._listen(stream)
                finally:
                    await stream.close()
            except (EngineGone, EngineRefused) as error:
                problem = error if isinstance(error, EngineGone) else EngineGone(str(error))
            except OSError as error:
                problem = EngineGone(f"the executor's directory cannot be used: {error}")
            except Exception as error:
                # An engine that answers with nonsense must not end the watch over all runs.
                log.exception("the answers of the container engine cannot be understood")
                problem = EngineGone(f"the engine's answers cannot be understood: {error!r}")
            if self._connected:
                log.warning("the container engine is gone; running tasks wait for it: %s", problem)
            if gone_since is None:
                gone_since = time.monotonic()
            self._problem = problem
            self._set_connected(False)
            if time.monotonic() - gone_since > self._patience_s:
                self._give_up(problem)
            self._hurry = anyio.Event()
            with anyio.move_on_after(retry_s):
                await self._hurry.wait()
                # Somebody asks now; but not for each who asks.
                await anyio.sleep(FIRST_RETRY_S)
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    def _set_connected(self, connected: bool) -> None:
        self._connected = connected
        if connected:
            self._problem = None
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _give_up(self, problem: EngineGone) -> None:
        for run in list(self.runs.values()):
            run.end(
                ExitRecord(lost=f"the container engine has been gone for {self._patience_s:g} s: {problem}")
            )

    async def _listen(self, stream: EngineStream) -> None:
        looking = self._background.spawn(self._look_now_and_then())
        try:
            async for raw in stream.lines():
                happening = read_event(raw)
                if happening is not None:
                    self._happened(happening)
        finally:
            looking.cancel()
        raise EngineGone("the engine ended its events")

    async def _look_now_and_then(self) -> None:
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(EngineGone):
                await self._look()

    # --- what happens to runs -----------------------------------------------------------------

    def _happened(self, happening: Happening) -> None:
        run = self.runs.get(happening.container)
        if run is None or run.ended.is_set():
            return
        if happening.kind == "oom":
            run.out_of_memory = True
        else:
            self._background.spawn(self._died(run, happening.code))

    async def _died(self, run: Run, code: int | None) -> None:
        """Note an end, unless an engine that is being stopped made it: then the next connection tells."""
        may_take_runs = self.facts is not None and not self.facts.survives_restart
        if may_take_runs and not run.stopping and not await self._stays():
            return
        try:
            if code is None or (code == SIGKILL_CODE and not run.out_of_memory):
                await self.check(run)
            else:
                run.end(ExitRecord(code, run.out_of_memory))
        except EngineGone as error:
            log.debug("the end of container %s is told by the next connection: %s", run.data.name, error)

    async def _stays(self) -> bool:
        """Return whether the engine goes on: it answers, on a new connection, and has not left the old one.

        Where systemd keeps the socket open, the next engine answers what the last one was asked.
        """
        changed = self._changed
        while changed is self._changed:
            with contextlib.suppress(EngineGone):
                await self._engine.ping_anew(GOING_DOWN_S)
                return changed is self._changed
            with anyio.move_on_after(FIRST_RETRY_S):
                await changed.wait()
        return False

    def _judged(self, run: Run, record: ExitRecord) -> ExitRecord:
        """Return the record with a kill for memory noted that the engine has not told of."""
        if run.out_of_memory or (
            record.code == SIGKILL_CODE
            and self.facts is not None
            and self.facts.kind == "podman"
            and not run.killed
            and run.data.mem_limit_bytes is not None
            and oom_kills() > run.data.oom_kills
        ):
            return ExitRecord(record.code, True, record.lost, record.problem)
        return record

    async def _look(self) -> None:
        """Compare what the engine lists with what is known."""
        agent = self._agent()
        known = list(self.runs.values())
        making = set(self.starting)
        try:
            listed: list[dict[str, Any]] = await self._engine.call(
                lambda client: client.containers(all=True, filters=label_filter(agent))
            )
        except EngineRefused as error:
            raise EngineGone(f"the engine does not list its containers: {error}") from error
        found = {str(each["Id"]): each for each in listed}
        for run in known:
            if run.ended.is_set():
                continue
            each = found.get(run.data.container)
            if each is not None and each.get("State") == "running":
                run.output.take_up(run.data.container, ended=False)
            else:
                await self._note_end(run)
        if self._kept is None:
            return
        for container, each in found.items():
            names = {str(name).lstrip("/") for name in each.get("Names") or ()}
            if container in self.runs or container in self._kept or names & (making | self.starting):
                continue
            name = named_by_labels(each.get("Labels") or {})
            if name not in names:
                log.debug("leaving container %s, which only has the labels of one of ours", names)
                continue
            log.warning("removing container %s, which no task needs any more", name)
            await self.remove(container)

    async def _note_end(self, run: Run) -> None:
        state = await self.inspect(run.data.container)
        if state is not None and state.ended:
            # Before the end is told, since `wait` then waits for what is being copied.
            run.output.take_up(run.data.container, ended=True)
        await self.check(run)

    async def remove(self, container: str) -> bool:
        """Remove a container, running or not; return whether it is gone. Never raises."""
        run = self.runs.get(container)
        running = run is None or not run.ended.is_set()
        if running and self.facts is not None and self.facts.kind == "podman":
            # Podman is polite to what it shall remove, for as long as `StopTimeout` says.
            with contextlib.suppress(EngineGone, EngineRefused):
                await self._engine.call(lambda client: client.kill(container, "SIGKILL"))
        try:
            await self._engine.call(lambda client: client.remove_container(container, v=True, force=True))
        except EngineRefused as error:
            # 409: it is being removed already.
            if error.status not in (404, 409):
                log.warning("container %s cannot be removed: %s", container[:12], error)
                return False
        except EngineGone:
            return False
        return True
