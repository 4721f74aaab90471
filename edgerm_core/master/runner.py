"""The master with its I/O: sessions in, the state machine in the middle, the store, sessions out.

Three loops share one event loop. Each session's reader turns frames into events and stops reading
while its own frames wait to be handled (back-pressure). The engine hands a batch of events to the
machine. The committer makes the batch durable in a worker thread, and only then carries out its
effects; meanwhile the engine works on the next batch, so that many batches share one disk flush.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup

from edgerm_core.clock import Clock, SteadyClock
from edgerm_core.codec import decode_batch, encode
from edgerm_core.config import Config, default_data_dir
from edgerm_core.errors import BlobError, ConnectionClosed, DecodeError, PluginError, StoreError
from edgerm_core.ids import AgentId, SessionId
from edgerm_core.interfaces import Connection, Listener, Scheduler, Store, StoreOpener, Write
from edgerm_core.limits import (
    BLOB_CHUNK_BYTES,
    HANDLE_BATCH_EVENTS,
    MAX_MESSAGE_BYTES,
    SESSION_INBOX_FRAMES,
    SESSION_OUTBOX_BYTES,
)
from edgerm_core.master import journal
from edgerm_core.master.blobs import BlobStore
from edgerm_core.master.effects import Changed, CloseSession, Commit, Effect, Report, Send
from edgerm_core.master.events import (
    BatchEnded,
    BlobRemoved,
    BlobStored,
    Event,
    Heard,
    Received,
    SessionClosed,
    SessionOpened,
    Undeliverable,
)
from edgerm_core.master.machine import Machine
from edgerm_core.master.port import SessionPort
from edgerm_core.master.records import Session
from edgerm_core.master.relay import RelayConnection, Relays
from edgerm_core.master.sender import Sender
from edgerm_core.master.settings import Settings
from edgerm_core.master.timelimit import time_limit
from edgerm_core.messages import (
    BlobData,
    BlobGet,
    BlobOffer,
    BlobState,
    Failed,
    Heartbeat,
    Launch,
    Message,
    RefusalCode,
    Refused,
    Register,
    RelayClose,
    Relayed,
    RelayOpen,
)
from edgerm_core.observers import Observer
from edgerm_core.plugins import Plugins, blaming
from edgerm_core.security import check_exposure
from edgerm_core.watchdog import describe

log = logging.getLogger(__name__)

STAGED_BATCHES: Final = 16
"""Batches handled but not yet durable; beyond that the engine waits for the disk."""

STORE_RETRY_S: Final = 1.0
STORE_PATIENCE_S: Final = 60.0
"""A disk that refuses is asked again for this long; then the master stops rather than promise what
it cannot keep. Nothing leaves meanwhile; agents go on with their tasks."""

BLOB_DATA_BYTES: Final = 60
"""Of a BlobData around its data, at most; the smallest frame that a peer may ask for has 64 bytes."""

REFUSAL_PART: Final = 8
"""A refusal's sentence takes at most this part of the smallest frame, in characters of up to 4 bytes."""

CLOSE_FLUSH_S: Final = 2.0
"""How long a session that is being closed may take to read what is still waiting for it."""


class MasterRunner:
    """Runs one machine. Use `run_master`."""

    def __init__(
        self,
        machine: Machine,
        store: Store,
        blobs: BlobStore,
        clock: Clock,
        observers: dict[str, Observer],
    ) -> None:
        self._machine = machine
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._observers = observers
        self._ports: dict[SessionId, SessionPort] = {}
        self._next_session = 1
        #: What the engine has to handle: events, with the port whose frame they end (or None).
        self._queue: collections.deque[tuple[list[Event], SessionPort | None]] = collections.deque()
        self._wake_engine = anyio.Event()
        self._staged: collections.deque[list[Effect]] = collections.deque()
        #: Writes that the committer has taken and the disk has not confirmed.
        self._unwritten: list[Write] = []
        self._wake_committer = anyio.Event()
        self._staged_room = anyio.Event()
        self._blob_lock = anyio.Lock()
        self._sender = Sender()
        #: Writers, and the channels of gateways.
        self._tasks: TaskGroup

    # --- sessions in --------------------------------------------------------------------------

    async def serve_connection(self, connection: Connection) -> None:
        """Carry one connection from its opening to its end. The listener calls this."""
        session_id = SessionId(self._next_session)
        self._next_session += 1
        port = SessionPort(session_id, connection, self._sender.to_send)
        self._ports[session_id] = port
        self._enqueue([_opening(session_id, connection)], None)
        reason = "closed"
        try:
            reason = await self._read(port)
            port.close(reason)
            await self._flush(port)
        finally:
            if port.writer is not None:
                port.writer.cancel()
            del self._ports[session_id]
            self._enqueue([SessionClosed(session_id, reason)], None)

    async def _flush(self, port: SessionPort) -> None:
        """Wait for a moment until what the connection still has to say has been said, and it is closed."""
        with anyio.move_on_after(CLOSE_FLUSH_S):
            if port.relays is not None:
                port.relays.end("its gateway's connection ended")
                await port.relays.wait_gone()
            await self._sender.flush(port)

    async def _read(self, port: SessionPort) -> str:
        """Turn frames into events until the connection ends; return why it did."""
        while True:
            try:
                data = await port.connection.receive()
                messages = decode_batch(data, MAX_MESSAGE_BYTES)
            except ConnectionClosed as error:
                return str(error)
            except DecodeError as error:
                log.info("%s sent something malformed: %s", port.connection.peer, error)
                self._refuse(port, RefusalCode.MALFORMED, str(error))
                return str(error)
            events: list[Event] = []
            for message in messages:
                if isinstance(message, BlobGet | BlobOffer | BlobData):
                    await self._serve_blob(port, message)
                    continue
                if isinstance(message, RelayOpen | Relayed | RelayClose):
                    await self._relay(port, message)
                    continue
                events.append(Received(port.id, message))
                if isinstance(message, Register) and message.max_message_bytes:
                    port.max_message_bytes = min(port.max_message_bytes, message.max_message_bytes)
                elif isinstance(message, Heartbeat) and message.heard and port.relays is not None:
                    events.append(Heard(port.relays.heard(message.heard)))
            if events:
                port.frames_waiting += 1
                self._enqueue(events, port)
                while port.frames_waiting >= SESSION_INBOX_FRAMES:
                    await port.wait_room()

    def _enqueue(self, events: list[Event], port: SessionPort | None) -> None:
        self._queue.append((events, port))
        self._wake_engine.set()

    # --- sessions out -------------------------------------------------------------------------

    async def run_sender(self) -> None:
        """Send what waits for peers, for ever."""
        async with anyio.create_task_group() as self._tasks:
            await self._sender.run(self._tasks)

    def _send(self, port: SessionPort, message: Message) -> None:
        data = encode(message)
        if len(data) > port.max_message_bytes:
            if isinstance(message, Launch):
                self._enqueue([Undeliverable(port.id, message, len(data))], None)
                return
            log.error(
                "%s for %s has %d bytes, more than its connection takes; left out",
                type(message).__name__,
                port.connection.peer,
                len(data),
            )
            request_id = getattr(message, "request_id", None)
            if request_id is None:
                return
            text = "the answer is larger than the connection takes: ask for less, with a limit"
            data = encode(Failed(request_id, RefusalCode.LIMIT, text))
        if not port.put(data) and port.closing is None:
            log.warning("%s reads too slowly and is disconnected", port.connection.peer)
            port.drop_waiting()
            text = f"more than {SESSION_OUTBOX_BYTES >> 20} MiB were waiting to be read"
            self._refuse(port, RefusalCode.SLOW, text)

    def _refuse(self, port: SessionPort, code: str, text: str) -> None:
        """Say why, and end the session once that has been sent."""
        if port.closing is None:
            port.put(encode(Refused(code, text[: port.max_message_bytes // REFUSAL_PART])))
            port.close(text)

    async def _session_of(self, port: SessionPort) -> Session | None:
        """Return the machine's session, or None if the peer has not greeted."""
        session = self._machine.state.sessions.get(port.id)
        if session is None or not session.role:
            # The greeting may still be on its way through the engine.
            while port.frames_waiting:
                await port.wait_room()
            session = self._machine.state.sessions.get(port.id)
        return session if session is not None and session.role else None

    # --- gateways -----------------------------------------------------------------------------

    async def _relay(self, port: SessionPort, message: RelayOpen | Relayed | RelayClose) -> None:
        """Carry the sessions of devices beside the machine, which only hears that they are there."""
        if port.relays is None:
            session = await self._session_of(port)
            if session is None or session.role != "agent" or isinstance(port.connection, RelayConnection):
                text = "only an agent with a connection of its own can be a gateway"
                self._refuse(port, RefusalCode.UNEXPECTED, text)
                return
            assert session.agent_id is not None

            def serve(connection: RelayConnection) -> None:
                self._tasks.start_soon(self._serve_relay, port, connection)

            port.relays = Relays(port, session.agent_id, serve)
        await port.relays.take(message)

    async def _serve_relay(self, gateway: SessionPort, connection: RelayConnection) -> None:
        try:
            await self.serve_connection(connection)
        except Exception:
            log.exception("carrying %s failed; its channel is closed", connection.peer)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()
            assert gateway.relays is not None
            gateway.relays.forget(connection)

    # --- blobs --------------------------------------------------------------------------------

    async def _serve_blob(self, port: SessionPort, message: BlobGet | BlobOffer | BlobData) -> None:
        """Read and write blobs beside the machine, which only hears that one is there."""
        session = await self._session_of(port)
        if session is None:
            self._refuse(port, RefusalCode.UNEXPECTED, "blobs are only for peers that have greeted")
            return
        try:
            if isinstance(message, BlobGet):
                length = min(message.length, BLOB_CHUNK_BYTES, port.max_message_bytes - BLOB_DATA_BYTES)
                size, data = await anyio.to_thread.run_sync(
                    self._blobs.read, message.blob, message.offset, length
                )
                self._send(port, BlobData(message.request_id, message.blob, message.offset, size, data))
                return
            if session.role == "agent":
                self._refuse(port, RefusalCode.UNEXPECTED, "agents do not upload blobs")
                return
            async with self._blob_lock:
                have = await self._take_blob(message)
            self._send(port, BlobState(message.request_id, message.blob, have, message.size))
        except BlobError as error:
            code = RefusalCode.NOT_FOUND if isinstance(message, BlobGet) else RefusalCode.SPEC
            self._send(port, Failed(message.request_id, code, str(error)))

    async def _take_blob(self, message: BlobOffer | BlobData) -> int:
        known = message.blob in self._machine.state.blobs
        if not known and (isinstance(message, BlobOffer) or message.offset == 0):
            in_use = self._machine.blobs_in_use()
            removed = await anyio.to_thread.run_sync(self._blobs.make_room, message.size, in_use)
            if removed:
                self._enqueue([BlobRemoved(blob) for blob in removed], None)
        if isinstance(message, BlobOffer):
            have = await anyio.to_thread.run_sync(self._blobs.have, message.blob, message.size)
        else:
            have = await anyio.to_thread.run_sync(
                self._blobs.write, message.blob, message.offset, message.size, message.data
            )
        if have == message.size and not known:
            self._enqueue([BlobStored(message.blob, message.size)], None)
        return have

    # --- the engine ---------------------------------------------------------------------------

    async def run_engine(self) -> None:
        """Hand events to the machine in batches, for ever."""
        while True:
            await self._wait_for_work()
            while len(self._staged) >= STAGED_BATCHES:
                self._staged_room = anyio.Event()
                await self._staged_room.wait()
            self._stage(self._handle_batch())
            await anyio.lowlevel.checkpoint()

    async def _wait_for_work(self) -> None:
        if self._queue:
            return
        deadline = self._machine.next_deadline()
        wait_s = None if deadline is None else max(0.0, deadline - self._clock())
        if wait_s == 0.0:
            return
        self._wake_engine = anyio.Event()
        with anyio.move_on_after(wait_s):
            await self._wake_engine.wait()

    def _handle_batch(self) -> list[Effect]:
        effects: list[Effect] = []
        count = 0
        while self._queue and count < HANDLE_BATCH_EVENTS:
            events, port = self._queue.popleft()
            count += len(events)
            for event in events:
                effects += self._handle(event)
            if port is not None:
                port.frames_waiting -= 1
                port.room.give()
        effects += self._handle(BatchEnded())
        return effects

    def _handle(self, event: Event) -> list[Effect]:
        try:
            return self._machine.handle(event, self._clock())
        except Exception:
            # A bug. Its peer is cut off, so that whatever it did is not repeated at once; what the
            # machine had done until then still counts.
            name = type(event.message).__name__ if isinstance(event, Received) else type(event).__name__
            log.exception("handling %s failed; please report this", name)
            leftover, self._machine.state.effects = self._machine.state.effects, []
            if isinstance(event, Received):
                text = f"the master could not handle a {name}; its log says why"
                leftover.append(CloseSession(event.session_id, RefusalCode.INTERNAL, text))
            if isinstance(event, BatchEnded):
                # What the batch sends must not leave before what it changed is on disk.
                leftover.insert(0, Commit(journal.take_writes(self._machine.state)))
            return leftover

    def stage_first_batch(self) -> None:
        """Let the machine settle after a restore: what it writes then is committed with the first batch."""
        self._stage(self._handle_batch())

    def _stage(self, effects: list[Effect]) -> None:
        if effects:
            self._staged.append(effects)
            self._wake_committer.set()

    # --- the committer ------------------------------------------------------------------------

    async def run_committer(self) -> None:
        """Make staged batches durable, then carry out their effects, for ever."""
        while True:
            while not self._staged:
                self._wake_committer = anyio.Event()
                await self._wake_committer.wait()
            effects = [effect for batch in self._staged for effect in batch]
            self._staged.clear()
            self._staged_room.set()
            self._unwritten = merge_writes(effects)
            if self._unwritten:
                await self._commit(self._unwritten)
                self._unwritten = []
            for effect in effects:
                self._carry_out(effect)

    async def _commit(self, writes: list[Write]) -> None:
        give_up_at = anyio.current_time() + STORE_PATIENCE_S
        while True:
            try:
                with blaming("store", type(self._store).__name__):
                    await anyio.to_thread.run_sync(self._store.commit, writes)
                return
            except StoreError as error:
                if anyio.current_time() >= give_up_at:
                    raise
                log.error("%s; nothing is sent until it can be written, trying again", error)
                await anyio.sleep(STORE_RETRY_S)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(session_id, message):
                port = self._ports.get(session_id)
                if port is not None and port.closing is None:
                    self._send(port, message)
            case CloseSession(session_id, code, text):
                port = self._ports.get(session_id)
                if port is not None:
                    self._refuse(port, code, text)
            case Changed(kind, row):
                self._observe(kind, row)
            case Report(level, text):
                log.log(level, "%s", text)
            case Commit():
                pass

    def _observe(self, kind: str, row: dict[str, object]) -> None:
        for name, observer in list(self._observers.items()):
            try:
                self._machine.state.within(partial(_tell, observer, kind, row))
            except Exception as error:
                log.error("observer %s failed and is not called again: %s", name, error)
                del self._observers[name]

    async def finish(self) -> None:
        """Write what is staged and the time, so that the next run starts from here."""
        effects = [effect for batch in self._staged for effect in batch]
        # A batch the disk refused comes before later ones, or these would speak of what is not there.
        writes = [*self._unwritten, *merge_writes(effects), self._final_meta()]
        try:
            with blaming("store", type(self._store).__name__):
                await anyio.to_thread.run_sync(self._store.commit, writes)
        finally:
            for name, observer in self._observers.items():
                try:
                    self._machine.state.within(observer.close)
                except Exception as error:
                    log.error("observer %s failed at its end: %s", name, error)

    def _final_meta(self) -> Write:
        return journal.meta_write(self._machine.state)


def _opening(session_id: SessionId, connection: Connection) -> SessionOpened:
    peer, identity, push = connection.peer, connection.identity, connection.push
    if not isinstance(connection, RelayConnection):
        return SessionOpened(session_id, peer, identity, push, connection.max_message_bytes)
    connection.session_id = session_id
    opened = connection.opened
    return SessionOpened(
        session_id,
        peer,
        identity,
        push,
        connection.max_message_bytes,
        connection.via,
        opened.age_s,
        AgentId(opened.custody_of) if opened.custody_of else None,
    )


def merge_writes(effects: Iterable[Effect]) -> list[Write]:
    """Return the writes of all commits; later ones of a record replace earlier ones."""
    writes: dict[tuple[str, bytes], Write] = {}
    for effect in effects:
        if isinstance(effect, Commit):
            for write in effect.writes:
                writes[write.kind, write.key] = write
    return list(writes.values())


# --- putting it together ----------------------------------------------------------------------


def choose_scheduler(config: Config, plugins: Plugins) -> str:
    """Return the scheduler that the config names; unnamed: `drf` if it is there, else `first-fit`."""
    if config.master.scheduler:
        return config.master.scheduler
    return "drf" if "drf" in plugins.names("scheduler") else "first-fit"


async def run_master(
    config: Config,
    plugins: Plugins,
    *,
    on_ready: Callable[[list[str]], None] | None = None,
    clock: Clock | None = None,
) -> None:
    """Run a master until cancelled.

    Parameters:
        on_ready: called once with the URLs it listens on.
        clock: seconds that never go backwards; None: the machine's.

    Raises:
        ConfigError: if the config would expose it, or is wrong in some other way.
        PluginError: if a plugin it needs is missing or broken.
        StoreError: if the data directory cannot be used, is owned by another master, or fails for
            longer than STORE_PATIENCE_S.
        TransportError: if an address is taken.
    """
    settings = config.master
    for url in settings.listen:
        check_exposure(url, settings.insecure, "master", "listen on")
        plugins.transport_for(url)
    data_dir = Path(settings.data_dir) if settings.data_dir else default_data_dir("master")
    scheduler: Scheduler = plugins.create("scheduler", choose_scheduler(config, plugins))
    opener: StoreOpener = plugins.create("store", settings.store)
    with blaming("store", settings.store):
        store = await anyio.to_thread.run_sync(opener, data_dir)
    try:
        with blaming("store", settings.store):
            records = await anyio.to_thread.run_sync(_load, store)
        meta = journal.read_meta(records)
        now = clock or SteadyClock(meta.now if meta else 0.0)
        machine = Machine(Settings.of(settings), scheduler, secrets.token_hex(8), now())
        blobs = BlobStore(data_dir / "blobs", settings.max_blob_bytes, settings.blob_store_bytes)
        for blob, size in blobs.scan().items():
            machine.handle(BlobStored(blob, size), now())
        machine.restore(records, now())
        observers = _create_observers(plugins)
        machine.state.observed = bool(observers)
        runner = MasterRunner(machine, store, blobs, now, observers)
        runner.stage_first_batch()
        with time_limit(lambda frame: describe(frame, plugins.plugin_of)) as within:
            machine.state.within = within
            await _run(runner, plugins, settings.listen, on_ready)
    finally:
        store.close()


async def _run(
    runner: MasterRunner,
    plugins: Plugins,
    urls: Iterable[str],
    on_ready: Callable[[list[str]], None] | None,
) -> None:
    """Listen and work until cancelled. Parameters and errors: those of `run_master`."""
    async with _listening(plugins, urls) as listeners:
        if on_ready is not None:
            on_ready([listener.url for listener in listeners])
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run_sender)
                group.start_soon(runner.run_engine)
                group.start_soon(runner.run_committer)
                for listener in listeners:
                    group.start_soon(_serve, listener, runner)
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(StoreError, PluginError):
                await runner.finish()


def _tell(observer: Observer, kind: str, row: dict[str, object]) -> None:
    getattr(observer, f"{kind}_changed")(row)


def _create_observers(plugins: Plugins) -> dict[str, Observer]:
    """Create the observers that have a config section; broken ones are named and left out.

    Raises:
        ConfigError: if a section is wrong.
    """
    observers: dict[str, Observer] = {}
    for name in plugins.config.observer:
        try:
            observers[name] = plugins.create("observer", name)
        except PluginError as error:
            log.error("observer %s is left out: %s", name, error)
    return observers


async def _serve(listener: Listener, runner: MasterRunner) -> None:
    with blaming("transport", listener.url):
        await listener.serve(runner.serve_connection)


def _load(store: Store) -> dict[str, dict[bytes, bytes]]:
    records: dict[str, dict[bytes, bytes]] = {}
    for kind, key, value in store.load():
        records.setdefault(kind, {})[key] = value
    return records


@contextlib.asynccontextmanager
async def _listening(plugins: Plugins, urls: Iterable[str]) -> AsyncIterator[list[Listener]]:
    listeners: list[Listener] = []
    try:
        for url in urls:
            with blaming("transport", url):
                listeners.append(await plugins.transport_for(url).listen(url))
        yield listeners
    finally:
        with anyio.CancelScope(shield=True):
            for listener in listeners:
                await listener.close()
