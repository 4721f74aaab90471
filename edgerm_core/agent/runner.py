"""The agent daemon: turns the state machine's effects into I/O, and I/O into its events.

One loop: take the events that have come, let the state machine handle them, write all its records with
one append, then send, dial, start and stop. Everything slow happens in coroutines of their own, which
come back with an event:

    link.Link             the connection of the current session
    execution.Execution   one run
    blobs.BlobFetcher     blobs on their way here
    devices.Devices       drivers' discovery
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from edgerm_core.agent import effects, events
from edgerm_core.agent.blob_cache import BlobCache
from edgerm_core.agent.blobs import BlobFetcher
from edgerm_core.agent.devices import Devices
from edgerm_core.agent.execution import Execution, Workshop
from edgerm_core.agent.executors import (
    FINGERPRINT_EVERY_S,
    FINGERPRINT_SICK_EVERY_S,
    close_executors,
    create_drivers,
    create_executors,
    fingerprints,
    sweep_executors,
)
from edgerm_core.agent.identity import agent_id, boot_id, incarnation
from edgerm_core.agent.inventory import Inventory
from edgerm_core.agent.journal import DirectoryLock, Journal
from edgerm_core.agent.link import Link
from edgerm_core.agent.records import decode_record, encode_record
from edgerm_core.agent.recovery import recover
from edgerm_core.agent.run import Phase
from edgerm_core.agent.sandbox import Sandboxes, TaskSandbox
from edgerm_core.agent.state import Agent
from edgerm_core.agent.usage import UsageReports, usage_every_s
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.config import Config, default_data_dir
from edgerm_core.errors import RefusedError
from edgerm_core.ids import SessionId
from edgerm_core.limits import (
    HANDLE_BATCH_EVENTS,
    JOURNAL_SYNC_S,
    MAX_MESSAGE_BYTES,
    UPLINK_BACKLOG_MESSAGES,
)
from edgerm_core.messages import AnyMessage, BlobData, Failed, Message, Registered
from edgerm_core.plugins import Plugins
from edgerm_core.security import check_exposure

if TYPE_CHECKING:
    from edgerm_core.gateway.runner import GatewayRunner

log = logging.getLogger(__name__)

CLEAN_EVERY_S: Final = 1.0
"""How often what ended tasks left on the disk is removed."""

CLEAN_TRIES: Final = 10
"""So often is tried what cannot be removed, such as a mount in use; then at the agent's next start."""


def anchored_clock() -> Callable[[], float]:
    """Return a clock that starts at Unix time and then never goes backwards, whatever is set."""
    anchor = time.time() - time.monotonic()
    return lambda: anchor + time.monotonic()


async def run_agent(
    config: Config,
    plugins: Plugins,
    *,
    clock: Callable[[], float] | None = None,
    rng: random.Random | None = None,
) -> None:
    """Run an agent until cancelled. Dials the masters the config names; listens only as a gateway.

    When it is cancelled, runs whose executor lets them outlive the agent process go on.

    Parameters:
        clock: seconds, near Unix time, never backwards.
        rng: for jitter.

    Raises:
        ConfigError: if the config makes no sense, or a master is off loopback and `agent.insecure` is
            not set, or the same for where a gateway listens and `gateway.insecure`.
        PluginError: if no transport for a URL is installed.
        StoreLocked: if another agent uses the data directory.
        StoreError: if the data directory cannot be used.
        RefusedError: if the master refuses this agent for good.
        TransportError: if an address where a gateway is to listen is taken.
    """
    for url in config.agent.masters:
        check_exposure(url, config.agent.insecure, "agent", "join")
        plugins.transport_for(url)
    for url in config.gateway.listen:
        check_exposure(url, config.gateway.insecure, "gateway", "listen on", "pose as a device")
        plugins.transport_for(url)
    data_dir = Path(config.agent.data_dir) if config.agent.data_dir else default_data_dir("agent")
    lock = DirectoryLock(data_dir)
    try:
        runner = _Runner(config, plugins, data_dir, clock or anchored_clock(), rng or random.Random())
        await runner.run()
    finally:
        lock.close()


class _Runner:
    """The daemon's parts, and the loop that drives them."""

    def __init__(
        self,
        whole_config: Config,
        plugins: Plugins,
        data_dir: Path,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._config = config = whole_config.agent
        self._gateway_config = whole_config.gateway
        self._data_dir = data_dir
        self._plugins = plugins
        self._clock = clock
        self._rng = rng
        # Executors keep what belongs to no single task below it.
        os.environ["EDGERM_AGENT_DATA"] = str(data_dir)
        self._id = agent_id(config.id, data_dir)
        self._inventory = Inventory(config, self._id, data_dir)
        self._journal = Journal(data_dir / "journal")
        self._recovered = recover(map(decode_record, self._journal.read()))
        self._sandboxes = Sandboxes(data_dir, config.log_ring_bytes)
        self._cache = BlobCache(data_dir / "blobs", config.blob_cache_bytes)
        self._executors = create_executors(plugins, config.executors)
        self._devices = Devices(create_drivers(plugins), self._devices_changed)
        self._events: deque[events.Event] = deque()
        self._woken = anyio.Event()
        self._link: Link | None = None
        self._gateway: GatewayRunner | None = None
        self._executions: dict[events.RunId, Execution] = {}
        #: What ended tasks have left, and how often it was tried to remove that.
        self._rubbish: list[tuple[TaskSandbox, int]] = []
        self._refused: RefusedError | None = None
        self._fingerprints: tuple[Fingerprint, ...] = ()
        self._look_again = anyio.Event()
        self._agent = Agent(
            self._info(),
            boot_id=boot_id(),
            incarnation=incarnation(),
            masters=len(config.masters),
            max_tasks=config.max_tasks,
            recovered=self._recovered,
        )
        self._tasks: anyio.abc.TaskGroup
        self._blobs: BlobFetcher
        self._workshop: Workshop

    async def run(self) -> None:
        """Run until cancelled or refused."""
        try:
            # Those that have ended were released by the process that saw them end.
            live = [key for key, run in self._recovered.runs.items() if run.phase is not Phase.ENDED]
            await anyio.to_thread.run_sync(self._sandboxes.clean, live, self._clock())
            async with anyio.create_task_group() as self._tasks:
                await self._set_up()
                await self._loop()
                self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await close_executors(self._executors)
                await self._devices.close()
                await anyio.to_thread.run_sync(self._journal.close)
        if self._refused is not None:
            raise self._refused

    async def _set_up(self) -> None:
        self._blobs = BlobFetcher(self._cache, self._tasks, self.send)
        self._workshop = Workshop(
            self._executors,
            self._blobs,
            self._sandboxes,
            self._devices,
            self._tasks,
            lambda: self._agent.info,
            lambda: self._look_again.set(),
        )
        self._fingerprints = await fingerprints(self._executors)
        for fingerprint in self._fingerprints:
            if not fingerprint.healthy:
                log.error("executor %s does not work: %s", fingerprint.name, fingerprint.problem)
        await sweep_executors(
            self._executors, [run.handle for run in self._recovered.runs.values() if run.handle is not None]
        )
        await self._devices.discover(self._tasks)
        if self._gateway_config.listen:
            await self._open_gateway()
        info = self._info()
        log.info("agent %s (%s) offers %s", info.name, info.id, info.totals)
        self._post(events.InventoryChanged(info))
        self._post(events.Began())
        self._tasks.start_soon(self._keep_journal)
        self._tasks.start_soon(self._keep_fingerprints)
        self._tasks.start_soon(self._keep_sandboxes)
        every_s = usage_every_s(self._config.usage_every_s, info.attributes)
        if every_s > 0:
            self._tasks.start_soon(self._keep_usage, every_s)

    async def _open_gateway(self) -> None:
        # Imported here: most agents are no gateway.
        from edgerm_core.gateway.runner import GatewayRunner, close_listeners, open_listeners

        config = self._gateway_config
        listeners = await open_listeners(config.listen, self._plugins)
        try:
            self._gateway = GatewayRunner(
                config, self._id, self._data_dir, self._blobs, _Uplink(self), self._clock
            )
        except BaseException:
            await close_listeners(listeners)
            raise
        self._tasks.start_soon(self._gateway.run, listeners)

    # --- the loop -----------------------------------------------------------------------------

    async def _loop(self) -> None:
        while True:
            self._turn()
            if self._refused is not None:
                return
            if self._events:
                await anyio.lowlevel.checkpoint()
                continue
            deadline = self._agent.next_deadline()
            with anyio.CancelScope() as scope:
                if deadline is not None:
                    scope.deadline = anyio.current_time() + max(0.0, deadline - self._clock())
                await self._woken.wait()
            self._woken = anyio.Event()

    def _turn(self) -> None:
        """Handle a batch of events and carry out what they call for."""
        now = self._clock()
        orders: list[effects.Effect] = []
        for _ in range(min(len(self._events), HANDLE_BATCH_EVENTS)):
            event = self._events.popleft()
            orders += self._agent.handle(event, now)
            if self._gateway is not None:
                self._tell_gateway(self._gateway, event)
            if self._link is not None and isinstance(event, events.FrameReceived):
                self._link.handled(event.session)
        deadline = self._agent.next_deadline()
        if deadline is not None and deadline <= now:
            orders += self._agent.handle(events.Ticked(), now)
        self._journal.append(
            [encode_record(order.record) for order in orders if isinstance(order, effects.WriteRecord)]
        )
        for order in orders:
            if not isinstance(order, effects.WriteRecord):
                self._carry_out(order, now)

    def _carry_out(self, order: effects.Effect, now: float) -> None:
        match order:
            case effects.Send():
                self.send(order.message)
            case effects.StartRun() | effects.RecoverRun():
                execution = Execution(self._workshop, order, self._post_run)
                self._executions[order.run] = execution
                self._tasks.start_soon(execution.run)
            case effects.ReleaseAttempt():
                sandbox = self._sandboxes.release((order.task_id, order.attempt), now)
                if sandbox is not None:
                    self._rubbish.append((sandbox, 0))
            case effects.StopRun():
                if (running := self._executions.get(order.run)) is not None:
                    running.stop(order.grace_s)
            case effects.Connect():
                self._tasks.start_soon(
                    self._session, order.session, self._config.masters[order.master_index]
                )
            case effects.Disconnect():
                if self._link is not None and self._link.session == order.session:
                    self._link.close(order.reason)
            case effects.Stop():
                self._refused = RefusedError(order.code, order.message)
            case _:
                raise AssertionError(f"no way to carry out {order!r}")

    def _post(self, event: events.Event) -> None:
        self._events.append(event)
        self._woken.set()

    # --- the session --------------------------------------------------------------------------

    async def _session(self, session: SessionId, url: str) -> None:
        link = Link(
            session,
            self._plugins.transport_for(url),
            url,
            self._sandboxes,
            on_connected=lambda number, peer: self._post(events.Connected(number, peer)),
            on_frame=self._on_frame,
            on_sent=lambda number: self._post(events.FrameSent(number)),
        )
        self._link = link
        problem = await link.run()
        self._link = None
        self._blobs.session_ended()
        self._post(events.Disconnected(session, problem, self._rng.random()))

    def _on_frame(self, session: SessionId, messages: list[AnyMessage]) -> None:
        self._post(events.FrameReceived(session, messages))
        for message in messages:
            # Blobs pass beside the state machine: they change nothing it knows.
            if isinstance(message, BlobData | Failed):
                self._blobs.on_message(message)
            elif isinstance(message, Registered):
                self._blobs.session_began()

    def send(self, message: Message) -> None:
        """Send a message in the current session, if there is one."""
        if self._link is not None:
            self._link.send(message)

    def _tell_gateway(self, gateway: GatewayRunner, event: events.Event) -> None:
        session = self._agent.session
        current = session.number if session.registered else None
        max_bytes = MAX_MESSAGE_BYTES if self._link is None else self._link.max_message_bytes
        gateway.uplink_is(current, self._agent.master_id, session.heartbeat_s, max_bytes)
        if isinstance(event, events.FrameReceived) and event.session == current:
            for message in event.messages:
                gateway.on_message(message)

    async def wait_uplink_room(self) -> None:
        """Wait while the session's connection is far behind."""
        if self._link is not None:
            await self._link.wait_room(UPLINK_BACKLOG_MESSAGES)

    # --- runs ---------------------------------------------------------------------------------

    def _post_run(
        self,
        event: events.RunFetching
        | events.RunProgress
        | events.RunStarted
        | events.RunRecovered
        | events.RunNotStarted
        | events.RunCancelled
        | events.RunLost
        | events.RunEnded,
    ) -> None:
        if not isinstance(
            event, events.RunFetching | events.RunProgress | events.RunStarted | events.RunRecovered
        ):
            self._executions.pop(event.run, None)
        self._post(event)

    # --- what goes on beside the loop ---------------------------------------------------------

    async def _keep_journal(self) -> None:
        """Sync and compact the journal: both are slow, and neither is waited for."""
        while True:
            await anyio.sleep(JOURNAL_SYNC_S)
            if self._journal.dirty:
                await anyio.to_thread.run_sync(self._journal.sync)
            if self._journal.wants_rewrite():
                write = self._journal.begin_rewrite(map(encode_record, self._agent.records()))
                problem: OSError | None = None
                try:
                    await anyio.to_thread.run_sync(write)
                except OSError as error:
                    problem = error
                self._journal.end_rewrite(problem)

    async def _keep_fingerprints(self) -> None:
        while True:
            sick = any(not fingerprint.healthy for fingerprint in self._fingerprints)
            with anyio.move_on_after(FINGERPRINT_SICK_EVERY_S if sick else FINGERPRINT_EVERY_S):
                await self._look_again.wait()
            self._look_again = anyio.Event()
            old, self._fingerprints = self._fingerprints, await fingerprints(self._executors)
            for before, after in zip(old, self._fingerprints, strict=True):
                if before.healthy != after.healthy:
                    news = "works again" if after.healthy else f"fails: {after.problem}"
                    log.warning("executor %s %s", after.name, news)
            if old != self._fingerprints:
                self._post(events.InventoryChanged(self._info()))

    async def _keep_usage(self, every_s: float) -> None:
        """Measure what runs, one after the other, and tell the master what has changed."""
        reports = UsageReports()
        while True:
            await anyio.sleep(every_s)
            if not self._agent.session.registered:
                continue
            stats = {run: await execution.stats() for run, execution in list(self._executions.items())}
            if self._agent.session.registered:
                known = {run: figures for run, figures in stats.items() if figures is not None}
                for message in reports.changed(self._agent.session.number, known):
                    self.send(message)

    async def _keep_sandboxes(self) -> None:
        """Remove what ended tasks left behind."""
        while True:
            await anyio.sleep(CLEAN_EVERY_S)
            rubbish, self._rubbish = self._rubbish, []
            expired = self._sandboxes.expire(self._clock())
            if rubbish or expired:
                self._rubbish += await anyio.to_thread.run_sync(_remove, rubbish, expired)

    def _devices_changed(self) -> None:
        self._post(events.InventoryChanged(self._info()))

    def _info(self) -> AgentInfo:
        return self._inventory.info(self._fingerprints, self._devices.all())


class _Uplink:
    """The agent's session as its gateway uses it."""

    def __init__(self, runner: _Runner) -> None:
        self._runner = runner

    def send(self, message: Message) -> None:
        self._runner.send(message)

    async def wait_room(self) -> None:
        await self._runner.wait_uplink_room()


def _remove(
    ended: list[tuple[TaskSandbox, int]], expired: list[TaskSandbox]
) -> list[tuple[TaskSandbox, int]]:
    """Remove what ended and expired tasks have left; return what is to be tried again."""
    again: list[tuple[TaskSandbox, int]] = []
    for sandbox, tries in ended:
        left = sandbox.remove_work()
        if left and tries + 1 < CLEAN_TRIES:
            again.append((sandbox, tries + 1))
        elif left:
            names = ", ".join(map(str, left))
            log.warning("%s cannot be removed; the agent tries that again when it is started next", names)
    for sandbox in expired:
        sandbox.remove()
    return again
