"""The asynchronous face for frameworks: submit tasks, follow them, take offers.

    async with connect_framework("ws://127.0.0.1:7070", name="hello") as framework:
        task = await framework.submit(process("echo", "hello"), cpus=0.1, mem="16MiB")
        ended = await task.wait()

A framework outlives its connections: when one is lost, it reconnects, sends again what was not
answered, and asks where its tasks stand. Waits go on meanwhile; bound them with `anyio.fail_after`.
Leaving the block leaves the tasks running; a framework with the same id finds them again with
`tasks`. To end everything, `teardown`.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Unpack

import anyio
import anyio.to_thread
import msgspec

from edgerm_core.client import blobs
from edgerm_core.client.blobs import BlobSource
from edgerm_core.client.link import Link, Unanswered
from edgerm_core.client.offers import HeldOffer, OfferBook
from edgerm_core.client.session import CONNECT_TIMEOUT_S, ConnectionCallback, Session, open_session
from edgerm_core.client.specs import Draft, Submittable, TaskOptions, as_draft
from edgerm_core.client.tasks import Task
from edgerm_core.codec import encode
from edgerm_core.errors import ConnectionClosed, EdgermError, ProtocolError, SpecError
from edgerm_core.frameworks import FrameworkInfo, check_framework
from edgerm_core.ids import BlobId, FrameworkId, TaskId
from edgerm_core.limits import MAX_SUBMIT_TASKS, REFUSE_DEFAULT_S
from edgerm_core.messages import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Accept,
    AnyMessage,
    Decline,
    Done,
    KillTasks,
    Message,
    Offers,
    Reconcile,
    Reconciled,
    Rescind,
    Revive,
    Submit,
    Submitted,
    Subscribe,
    Suppress,
    TaskAcknowledge,
    TaskUpdate,
    Unsubscribe,
)
from edgerm_core.plugins import Plugins
from edgerm_core.tasks import Reason, TaskState

log = logging.getLogger(__name__)

EARLY_UPDATES: Final = 1_000
"""Updates kept of tasks whose Submitted has not come yet (at most 64 kB each, usually 30 bytes). If
some had to go, the next tasks to be submitted are asked for."""

KNOWN_UPLOADS: Final = 10_000
"""Blobs remembered as uploaded over this connection; forgetting one costs a question."""

IDS_PER_MESSAGE: Final = 10_000
"""Task ids in one Reconcile, KillTasks or TaskAcknowledge: 90 kB at most."""

RECONCILE_S: Final = 900.0
"""Ask where all tasks stand this often, as Mesos's guide for frameworks advises."""

REQUEST_OVERHEAD_BYTES: Final = 64
"""More than a request's id and tag need beside what was measured."""

UNKNOWN_REASON: Final = "unknown to the master"
"""Reason of a task that ended here because the master's records no longer have it."""


class Framework:
    """A connected framework. Made by `connect_framework`.

    Attributes:
        info: what it says about itself; `info.id` is what a later run needs to take over.
        session: its session with the master.
    """

    session: Session

    def __init__(self, info: FrameworkInfo) -> None:
        self.info = info
        self._tasks: dict[TaskId, Task] = {}
        self._early: OrderedDict[TaskId, TaskUpdate] = OrderedDict()
        self._early_dropped = False
        self._adopting = 0
        self._ended: set[TaskId] = set()
        self._missing: dict[BlobId, BlobSource] = {}
        self._duty = anyio.Event()
        self._key_prefix = uuid.uuid4().hex[:16]
        self._key_count = 0
        self._book = OfferBook()
        self._suppressed = False
        self._uploaded: set[BlobId] = set()
        self._uploads: dict[BlobId, anyio.Lock] = {}

    @property
    def id(self) -> FrameworkId:
        """Its identity; connecting with the same one again is a failover."""
        return self.info.id

    # --- tasks --------------------------------------------------------------------------------

    async def submit(
        self, what: Submittable, *, key: str | None = None, **options: Unpack[TaskOptions]
    ) -> Task:
        """Upload what the task needs and submit it; return it once the master has it on disk.

        Idempotent by key: the same key again returns the task it made then. A lost connection is
        sat out. Cancelling leaves open whether it was submitted.

        Parameters:
            what: an implementation (`process(...)`, `wasm(...)`), several in order of preference, or
                a whole task (`task(...)`, a TaskSpec).
            key: unique within this framework; None: made here.
            options: as for `task`, unless `what` is a whole task.

        Raises:
            SpecError, ResourceError, BlobError: if the task is wrong; nothing was submitted.
            RequestFailed: if the master does not take it now (a limit).
            TransportError: if a connected master does not answer.
            RefusedError: if the master ended the session for good.
        """
        draft = as_draft(what, **options)
        if draft.spec.instances != 1:
            raise SpecError(
                f"task {draft.spec.name}: submit() makes one task; for {draft.spec.instances} instances "
                f"use submit_many(), which returns them all"
            )
        return (await self.submit_many([draft], keys=None if key is None else [key]))[0]

    async def submit_many(
        self, whats: Sequence[Submittable], *, keys: Sequence[str] | None = None
    ) -> list[Task]:
        """Submit many tasks in as few messages as possible; return them in order, instances in a row.

        All or none per message: at most `MAX_SUBMIT_TASKS` tasks and `max_message_bytes` go into one.

        Raises:
            As `submit`. With several messages, those before the refused one stay submitted.
        """
        drafts = [as_draft(what) for what in whats]
        own_keys = [self._make_key() for _ in drafts] if keys is None else list(keys)
        if len(own_keys) != len(drafts):
            raise SpecError(f"{len(drafts)} tasks came with {len(own_keys)} keys")
        await self._upload_all(drafts)
        pairs = list(zip(own_keys, drafts, strict=True))
        max_bytes = (await self.session.link()).max_message_bytes - REQUEST_OVERHEAD_BYTES
        made: list[Task] = []
        for part in split_submission(pairs, max_bytes):
            message = submission(0, part)
            made += await self._launch(message, [draft for _, draft in part], ask_where=keys is not None)
        return made

    async def _launch(
        self, message: Submit | Accept, drafts: Sequence[Draft], *, ask_where: bool
    ) -> list[Task]:
        """Send a Submit or Accept; return its tasks.

        `ask_where`: the keys may be known, so that the tasks' news may have gone to an earlier
        session; ask where they stand.
        """
        sent = 0

        def make(request_id: int) -> Message:
            nonlocal sent
            sent += 1
            return _numbered(message, request_id)

        answer = await self.session.request(make, Submitted)
        if len(answer.task_ids) != len(drafts):
            raise ProtocolError(
                f"the master answered {len(drafts)} specs with {len(answer.task_ids)} tasks"
            )
        made = [
            self._hold(task_id, draft)
            for ids, draft in zip(answer.task_ids, drafts, strict=True)
            for task_id in ids
        ]
        if ask_where or sent > 1 or self._early_dropped:
            self._early_dropped = False
            for part in _parts([task.id for task in made]):
                asked = await self.session.request(_reconcile(part), Reconciled)
                self._end_unknown(asked.unknown)
        return made

    async def tasks(self) -> list[Task]:
        """Return all of this framework's tasks that have not ended, also those of an earlier run.

        Raises:
            TransportError: if a connected master does not answer.
            RefusedError: if the master ended the session for good.
        """
        self._adopting += 1
        try:
            await self.session.request(_reconcile(()), Reconciled)
        finally:
            self._adopting -= 1
        return list(self._tasks.values())

    async def kill(self, tasks: Sequence[Task], grace_s: float | None = None) -> None:
        """Ask for the end of many tasks at once. Idempotent; ended ones are left alone.

        Raises:
            RequestFailed, TransportError, RefusedError: as `submit`.
        """
        for part in _parts([task.id for task in tasks if not task.state.terminal]):
            kill = KillTasks(0, part, grace_s)
            await self.session.request(partial(_numbered, kill), Done)

    async def teardown(self) -> None:
        """Remove the framework: its tasks are killed, its record goes. The session ends with it.

        Raises:
            TransportError: if a connected master does not answer.
        """
        try:
            await self.session.request(lambda request_id: Unsubscribe(request_id), Done)
        finally:
            self.session.fail(ConnectionClosed(f"framework {self.id} was torn down by this program"))

    def _make_key(self) -> str:
        self._key_count += 1
        return f"{self._key_prefix}-{self._key_count}"

    def _hold(self, task_id: TaskId, draft: Draft | None) -> Task:
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = Task(self, task_id)
        if draft is not None:
            task.name = draft.spec.name
            task.sources = draft.blobs
        early = self._early.pop(task_id, None)
        if early is not None:
            self._update(task, early)
        return task

    def _update(self, task: Task, update: TaskUpdate) -> None:
        task.on_update(update)
        if task.state.terminal:
            del self._tasks[task.id]
            self._ended.add(task.id)
            self._duty.set()
        elif update.reason == Reason.WAITING_BLOB and task.sources:
            self._missing.update((source.id, source) for source in task.sources)
            self._duty.set()

    def _put_aside(self, update: TaskUpdate) -> None:
        known = self._early.get(update.task_id)
        if known is None or update.version > known.version:
            self._early[update.task_id] = update
            if len(self._early) > EARLY_UPDATES:
                self._early.popitem(last=False)
                self._early_dropped = True

    def _end_unknown(self, unknown: Sequence[TaskId]) -> None:
        for task_id in unknown:
            task = self._tasks.get(task_id)
            if task is not None:
                problem = (
                    f"the master at {self.session.url} has no record of it: it was forgotten, or the "
                    f"master lost its data directory"
                )
                version = task.update.version + 1
                self._update(task, TaskUpdate(task_id, version, TaskState.GONE, UNKNOWN_REASON, problem))

    # --- blobs --------------------------------------------------------------------------------

    async def upload(self, content: bytes | str | Path | BlobSource) -> BlobId:
        """Bring a module or file to the master, unless it has it; return its id. Idempotent.

        The same content is uploaded once, however many ask for it at the same time.

        Raises:
            BlobError: if the file cannot be read, or the master does not take it.
            TransportError, RefusedError: as `submit`.
        """
        if isinstance(content, BlobSource):
            source = content
        else:
            source = await anyio.to_thread.run_sync(BlobSource.of, content)
        lock = self._uploads.setdefault(source.id, anyio.Lock())
        try:
            async with lock:
                if source.id not in self._uploaded:
                    await blobs.upload(self.session, source)
                    if len(self._uploaded) >= KNOWN_UPLOADS:
                        self._uploaded.clear()
                    self._uploaded.add(source.id)
        finally:
            if not lock.statistics().tasks_waiting:
                self._uploads.pop(source.id, None)
        return source.id

    async def _upload_all(self, drafts: Sequence[Draft]) -> None:
        for source in {source.id: source for draft in drafts for source in draft.blobs}.values():
            await self.upload(source)

    # --- offers -------------------------------------------------------------------------------

    async def offers(self) -> AsyncIterator[HeldOffer]:
        """Yield offers as they come. Rescinded ones vanish, also while they wait here.

        Answer each one soon: what an offer holds nobody else can use, and the master takes back
        what is not answered in time.

        Raises:
            SpecError: if the framework did not ask for offers when it connected.
            EdgermError: if the session is over for good.
        """
        if not self.info.offers:
            raise SpecError(f"framework {self.id} takes no offers: connect with offers=True")
        async for offer in self._book:
            yield offer

    async def accept(
        self,
        offers: Sequence[HeldOffer],
        tasks: Sequence[Submittable],
        refuse_s: float = REFUSE_DEFAULT_S,
    ) -> list[Task]:
        """Launch tasks on offers of one agent; return them in order. The offers are used up.

        Parameters:
            refuse_s: what the tasks leave over is not offered again for so many seconds.

        Raises:
            OfferGone: if an offer is gone, its agent is away, or the tasks do not fit; wait for the next
                offer.
            SpecError: if a task is wrong, the offers are of different agents, or all of it does not
                fit into one message.
            RequestFailed, TransportError, RefusedError: as `submit`.
        """
        if len({offer.agent_id for offer in offers}) != 1:
            raise SpecError(
                "accept() needs offers of one agent; accept those of different agents one by one"
            )
        drafts = [as_draft(what) for what in tasks]
        await self._upload_all(drafts)
        keys = tuple(self._make_key() for _ in drafts)
        specs = tuple(draft.spec for draft in drafts)
        message = Accept(0, tuple(offer.id for offer in offers), keys, specs, refuse_s)
        size = len(encode(message))
        max_bytes = (await self.session.link()).max_message_bytes - REQUEST_OVERHEAD_BYTES
        if size > max_bytes:
            raise SpecError(
                f"{len(specs)} tasks of {size} bytes do not fit into one message of {max_bytes} bytes: "
                f"accept with fewer"
            )
        self._book.use(offers)
        return await self._launch(message, drafts, ask_where=False)

    async def decline(self, offers: Sequence[HeldOffer], refuse_s: float = REFUSE_DEFAULT_S) -> None:
        """Give offers back; the same or less of those agents is not offered for `refuse_s` seconds.

        Offers that are gone already are left out. Idempotent.
        """
        ids = self._book.use([offer for offer in offers if not offer.gone])
        if ids:
            await self._tell(Decline(ids, refuse_s))

    async def revive(self) -> None:
        """Forget all filters and make offers again, also after `suppress`."""
        self._suppressed = False
        await self._tell(Revive())

    async def suppress(self) -> None:
        """Make no offers until `revive`; also after a reconnect. Offers that are out stay out."""
        self._suppressed = True
        await self._tell(Suppress())

    async def _tell(self, message: Message) -> None:
        """Send what needs no answer and is void on another connection."""
        try:
            await (await self.session.link()).send(message)
        except ConnectionClosed:
            log.debug("%s was not sent, the connection was lost", type(message).__name__)

    # --- what the session calls ---------------------------------------------------------------

    def greeting(self) -> Subscribe:
        """See `Peer.greeting`."""
        return Subscribe((OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION), self.info)

    def on_message(self, message: AnyMessage) -> None:
        """See `Peer.on_message`."""
        match message:
            case TaskUpdate():
                task = self._tasks.get(message.task_id)
                if task is not None:
                    self._update(task, message)
                elif self._adopting and not message.state.terminal:
                    self._update(self._hold(message.task_id, None), message)
                elif message.task_id not in self._ended:
                    self._put_aside(message)
            case Offers():
                for offer in message.offers:
                    held = HeldOffer(self, offer)
                    if not self._book.add(held):
                        log.warning("offer %d was ignored: too many unanswered ones", offer.id)
            case Rescind():
                for offer_id in message.offer_ids:
                    self._book.remove(offer_id, "it was rescinded")
            case _:
                log.debug("%s from the master was not expected here", type(message).__name__)

    async def on_link(self, link: Link) -> None:
        """See `Peer.on_link`: what is known is asked for again; what was promised is void at its end."""
        if self._suppressed:
            link.post(Suppress())
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_reconciled, link)
                group.start_soon(self._keep_master_supplied, link)
        finally:
            self._book.clear("the connection it came over was lost")
            self._uploaded.clear()

    async def _keep_reconciled(self, link: Link) -> None:
        """Ask where the tasks stand, now and then; the next connection does it anew."""
        while True:
            try:
                for part in _parts(list(self._tasks)):
                    answer = await link.ask(_reconcile(part))
                    if isinstance(answer, Reconciled):
                        self._end_unknown(answer.unknown)
            except ConnectionClosed:
                return
            except Unanswered as error:
                log.warning("%s; asking again", error)
                continue
            await anyio.sleep(RECONCILE_S)

    async def _keep_master_supplied(self, link: Link) -> None:
        """Acknowledge ends, and upload again what the master lacks, in batches."""
        while True:
            self._acknowledge(link)
            while self._missing:
                blob, source = self._missing.popitem()
                self._uploaded.discard(blob)
                try:
                    await self.upload(source)
                except EdgermError as error:
                    log.warning("a task waits for a blob that cannot be uploaded: %s", error)
            if not self._ended:
                self._duty = anyio.Event()
                await self._duty.wait()

    def _acknowledge(self, link: Link) -> None:
        ids = sorted(self._ended)
        self._ended.clear()
        for start in range(0, len(ids), IDS_PER_MESSAGE):
            link.post(TaskAcknowledge(tuple(ids[start : start + IDS_PER_MESSAGE])))

    def on_leaving(self, link: Link) -> None:
        """See `Peer.on_leaving`."""
        self._acknowledge(link)

    def on_failure(self, error: EdgermError) -> None:
        """See `Peer.on_failure`."""
        for task in self._tasks.values():
            task.on_failure(error)
        self._book.fail(error)


def submission(request_id: int, pairs: Sequence[tuple[str, Draft]]) -> Submit:
    """Return the message that submits these (key, draft) pairs."""
    return Submit(request_id, tuple(key for key, _ in pairs), tuple(draft.spec for _, draft in pairs))


def split_submission(
    pairs: Sequence[tuple[str, Draft]], max_bytes: int
) -> list[Sequence[tuple[str, Draft]]]:
    """Split (key, draft) pairs into runs that each fit one Submit.

    Raises:
        SpecError: if one spec alone is too large.
    """
    if not pairs:
        return []
    # One spec alone never makes more: check_spec has seen to that.
    if sum(draft.spec.instances for _, draft in pairs) <= MAX_SUBMIT_TASKS:
        size = len(encode(submission(0, pairs)))
        if size <= max_bytes:
            return [pairs]
        if len(pairs) == 1:
            raise SpecError(
                f"task {pairs[0][1].spec.name}: its description of {size} bytes does not fit into a "
                f"message of {max_bytes} bytes; put large data into files"
            )
    middle = len(pairs) // 2
    return split_submission(pairs[:middle], max_bytes) + split_submission(pairs[middle:], max_bytes)


def _parts(ids: Sequence[TaskId]) -> list[tuple[TaskId, ...]]:
    return [tuple(ids[i : i + IDS_PER_MESSAGE]) for i in range(0, len(ids), IDS_PER_MESSAGE)]


def _numbered(message: Message, request_id: int) -> Message:
    return msgspec.structs.replace(message, request_id=request_id)


def _reconcile(ids: tuple[TaskId, ...]) -> Callable[[int], Message]:
    return partial(_numbered, Reconcile(0, ids))


@asynccontextmanager
async def connect_framework(
    url: str | None = None,
    *,
    id: str | None = None,
    name: str = "",
    weight: float = 1.0,
    role: str = "",
    offers: bool = False,
    failover_timeout_s: float | None = None,
    insecure: bool = False,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    on_connection: ConnectionCallback | None = None,
    plugins: Plugins | None = None,
) -> AsyncIterator[Framework]:
    """Connect as a framework for as long as the block runs.

    Parameters:
        url: the master; None: `$EDGERM_MASTER`, else ws://127.0.0.1:7070.
        id: identity, 1 to 64 letters, digits, dots, dashes, underscores; the same id again is a
            failover: it finds its tasks, and an older session with it ends. None: a new one.
        name: for people.
        weight: part in fair sharing; 2 is entitled to twice the share of 1.
        role: where it stands in hierarchical sharing, such as `lab/sensing`.
        offers: whether to take offers.
        failover_timeout_s: how long it may stay away before the master kills its tasks; None: for ever.
        insecure: allow a master off this machine although nobody is authenticated.
        connect_timeout_s: for the first connection; later outages are sat out.
        on_connection: told of every change of the connection.
        plugins: where transports come from; None: all that are installed.

    Raises:
        ConfigError: if the URL makes no sense, or leads off this machine without `insecure`.
        PluginError: if no installed transport speaks the URL.
        SpecError: if id, name, weight or role make no sense.
        TransportError: if no master answers within `connect_timeout_s`.
        RefusedError, VersionError: if the master refuses the framework for good.
    """
    made_id = id or f"{name[:24] or 'framework'}-{uuid.uuid4().hex[:12]}"
    info = FrameworkInfo(FrameworkId(made_id), name, round(weight * 1000), role, failover_timeout_s, offers)
    check_framework(info)
    framework = Framework(info)
    async with open_session(
        framework,
        url,
        insecure=insecure,
        connect_timeout_s=connect_timeout_s,
        on_connection=on_connection,
        plugins=plugins,
    ) as session:
        framework.session = session
        yield framework
