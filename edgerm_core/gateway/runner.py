"""The gateway with its I/O: devices on its listeners, the master in the agent's session, custody on disk.

Events are handled as they come, and their effects carried out at once: records are appended, frames go
to their connections. Only what must survive a power cut waits: a coroutine syncs the journal while any
device waits for it, and says so when that is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread

from edgerm_core.agent.blobs import BlobFetcher, BlobProblem
from edgerm_core.agent.journal import Journal
from edgerm_core.codec import decode_batch
from edgerm_core.config import GatewayConfig
from edgerm_core.errors import DecodeError
from edgerm_core.gateway import effects, events
from edgerm_core.gateway.custody import recover
from edgerm_core.gateway.link import DeviceLink
from edgerm_core.gateway.records import decode_record, encode_record
from edgerm_core.gateway.state import Gateway
from edgerm_core.ids import AgentId, BlobId, SessionId
from edgerm_core.interfaces import Connection, Listener
from edgerm_core.limits import JOURNAL_SYNC_S, MAX_PREFETCHES
from edgerm_core.messages import AnyMessage, Message, RelayClose, Relayed
from edgerm_core.plugins import Plugins

log = logging.getLogger(__name__)

DISK_RETRY_S: Final = 1.0
"""How soon a disk that refused is tried again."""


class UplinkPort(Protocol):
    """The agent's session with the master, as the gateway uses it."""

    def send(self, message: Message) -> None:
        """Send a message; nothing if there is no session."""
        ...

    async def wait_room(self) -> None:
        """Wait while more than UPLINK_BACKLOG_MESSAGES wait to be sent."""
        ...


class GatewayRunner:
    """Runs one gateway, inside an agent.

    Parameters:
        config: the `[gateway]` section.
        agent_id: the agent's.
        data_dir: the agent's; the gateway's files are in `gateway` below it.
        blobs: where the agent's blobs come from.
        uplink: its session.
        clock: seconds that never go backwards.

    Raises:
        StoreError: if the data directory cannot be used.
    """

    def __init__(
        self,
        config: GatewayConfig,
        agent_id: AgentId,
        data_dir: Path,
        blobs: BlobFetcher,
        uplink: UplinkPort,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._blobs = blobs
        self._uplink = uplink
        self._clock = clock
        directory = data_dir / "gateway"
        directory.mkdir(exist_ok=True)
        self._journal = Journal(directory / "journal")
        custody = recover(config.custody_bytes, map(decode_record, self._journal.read()))
        self._gateway = Gateway(config, agent_id, custody)
        self._records = 0
        self._last_session = 0
        self._links: dict[SessionId, DeviceLink] = {}
        self._prefetching: set[BlobId] = set()
        self._session: SessionId | None = None
        self._deadline: float | None = None
        self._deadline_changed = anyio.Event()
        self._unsynced = anyio.Event()
        #: A file that is being replaced cannot be synced.
        self._journal_lock = anyio.Lock()
        self._tasks: anyio.abc.TaskGroup

    async def run(self, listeners: Sequence[Listener]) -> None:
        """Serve devices until cancelled."""
        log.info("gateway listens on %s", " ".join(listener.url for listener in listeners))
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._keep_time)
                self._tasks.start_soon(self._keep_synced)
                self._tasks.start_soon(self._keep_journal)
                for listener in listeners:
                    self._tasks.start_soon(listener.serve, self._serve)
        finally:
            await close_listeners(listeners)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._journal.close)

    # --- used by the agent's runner, never waits ----------------------------------------------

    def uplink_is(
        self, session: SessionId | None, master_id: str, heartbeat_s: float, max_message_bytes: int
    ) -> None:
        """Say in which session a master listens to the agent now; None: in none. Idempotent."""
        if session == self._session:
            return
        if self._session is not None:
            self._handle(events.UplinkClosed())
        self._session = session
        if session is not None:
            self._handle(events.UplinkOpened(master_id, heartbeat_s, max_message_bytes))

    def on_message(self, message: AnyMessage) -> None:
        """Take a message of the master; one that is not for the gateway is ignored."""
        if self._session is None:
            return
        if isinstance(message, RelayClose):
            self._handle(events.ChannelClosed(message.channel, message.reason))
        elif isinstance(message, Relayed):
            try:
                messages = decode_batch(message.data)
            except DecodeError as error:
                log.error("the master relayed something that is not a message: %s", error)
                return
            self._handle(events.MasterSaid(message.channel, messages))

    # --- events and effects -------------------------------------------------------------------

    def _handle(self, event: events.Event) -> None:
        orders = self._gateway.handle(event, self._clock())
        records = [order.record for order in orders if isinstance(order, effects.WriteRecord)]
        if records:
            self._journal.append(map(encode_record, records))
            self._records += len(records)
        if self._gateway.unsynced:
            self._unsynced.set()
        deadline = self._gateway.next_deadline()
        if deadline != self._deadline:
            self._deadline = deadline
            self._deadline_changed.set()
        for order in orders:
            self._carry_out(order)

    def _carry_out(self, order: effects.Effect) -> None:
        match order:
            case effects.SendUp(message):
                self._uplink.send(message)
            case effects.SendDown(session, frame):
                if (link := self._links.get(session)) is not None:
                    link.send(frame)
            case effects.CloseDevice():
                if (link := self._links.get(order.session)) is not None:
                    link.close(order)
            case effects.ServeBlob(session, request):
                if (link := self._links.get(session)) is not None:
                    link.serve_blob(request)
            case effects.FetchBlob(blob):
                if blob not in self._prefetching and len(self._prefetching) < MAX_PREFETCHES:
                    self._prefetching.add(blob)
                    self._tasks.start_soon(self._prefetch, blob)
            case effects.Report(level, text):
                log.log(level, "%s", text)
            case effects.WriteRecord():
                pass

    async def _prefetch(self, blob: BlobId) -> None:
        """Have a blob here before a device wakes up and asks for it."""
        cache = self._blobs.cache
        cache.hold(blob)
        try:
            await self._blobs.get(blob)
        except BlobProblem as problem:
            log.info("blob %s for a device: %s", blob.hex()[:12], problem)
        finally:
            cache.let_go(blob)
            self._prefetching.discard(blob)

    # --- devices ------------------------------------------------------------------------------

    async def _serve(self, connection: Connection) -> None:
        """Carry one device's connection. The listeners call this."""
        self._last_session += 1
        session = SessionId(self._last_session)
        link = DeviceLink(session, connection, self._handle, self._uplink.wait_room, self._blobs)
        self._links[session] = link
        try:
            await link.run()
        finally:
            del self._links[session]

    # --- what goes on beside ------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._deadline_changed = anyio.Event()
            with anyio.CancelScope() as scope:
                if self._deadline is not None:
                    scope.deadline = anyio.current_time() + max(0.0, self._deadline - self._clock())
                await self._deadline_changed.wait()
            if self._deadline is not None and self._deadline <= self._clock():
                self._handle(events.Ticked())

    async def _keep_synced(self) -> None:
        """Sync the journal whenever a device waits for that."""
        while True:
            await self._unsynced.wait()
            self._unsynced = anyio.Event()
            while self._gateway.unsynced:
                async with self._journal_lock:
                    records = self._records
                    self._journal.append([])  # Writes what an earlier call could not.
                    synced = not self._journal.behind and await anyio.to_thread.run_sync(self._journal.sync)
                if synced:
                    self._handle(events.Synced(records))
                else:
                    await anyio.sleep(DISK_RETRY_S)

    async def _keep_journal(self) -> None:
        """Sync the rest now and then, and compact; neither is waited for."""
        while True:
            await anyio.sleep(JOURNAL_SYNC_S)
            async with self._journal_lock:
                if self._journal.dirty:
                    await anyio.to_thread.run_sync(self._journal.sync)
                if self._journal.wants_rewrite():
                    await self._rewrite_journal()

    async def _rewrite_journal(self) -> None:
        write = self._journal.begin_rewrite(map(encode_record, self._gateway.records()))
        problem: OSError | None = None
        try:
            await anyio.to_thread.run_sync(write)
        except OSError as error:
            problem = error
        self._journal.end_rewrite(problem)


async def open_listeners(urls: Iterable[str], plugins: Plugins) -> list[Listener]:
    """Return the listeners, bound; `GatewayRunner.run` serves and closes them.

    Raises:
        TransportError: if an address is taken.
        PluginError: if no transport for a URL is installed.
    """
    listeners: list[Listener] = []
    try:
        for url in urls:
            listeners.append(await plugins.transport_for(url).listen(url))
    except BaseException:
        await close_listeners(listeners)
        raise
    return listeners


async def close_listeners(listeners: Sequence[Listener]) -> None:
    """Close them, whatever happens meanwhile."""
    with anyio.CancelScope(shield=True):
        for listener in listeners:
            await listener.close()
