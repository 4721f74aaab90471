"""Masters for the tests of the client: one that a test drives step by step, one that runs by itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from edgerm_core.builtin import memory_transport
from edgerm_core.builtin.memory_transport import MemoryListener, MemoryTransport
from edgerm_core.client import Framework, connect_framework, process
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.config import Config
from edgerm_core.errors import ConnectionClosed, TransportError
from edgerm_core.hookspecs import hookimpl
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import Connection, Provider, Transport
from edgerm_core.messages import (
    AnyMessage,
    BlobData,
    BlobOffer,
    BlobState,
    Done,
    Greet,
    Greeted,
    KillTasks,
    LogData,
    LogGet,
    Message,
    Reconcile,
    Reconciled,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    TaskUpdate,
    Unsubscribe,
)
from edgerm_core.plugins import Plugins
from edgerm_core.tasks import TaskSpec, TaskState

M = TypeVar("M", bound=Message)
HELLO = process("echo", "hello")
WAIT_S = 30.0


class PeerScript:
    """One client's connection, as the test's master sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: list[AnyMessage] = []
        self.gone = anyio.Event()

    async def expect(self, message_type: type[M]) -> M:
        """Return the next message, which must be of this type."""
        with anyio.fail_after(WAIT_S):
            while not self._messages:
                self._messages += decode_batch(await self._connection.receive())
        message = self._messages.pop(0)
        assert isinstance(message, message_type), message
        return message

    async def expect_nothing(self, within_s: float = 0.05) -> None:
        """Check that nothing comes for a moment."""
        with anyio.move_on_after(within_s):
            raise AssertionError(await self.expect(Message))

    async def send(self, *messages: Message) -> None:
        await self._connection.send(encode_batch(messages))

    async def drop(self) -> None:
        """End the connection, as a network would."""
        await self._connection.close("the test cut it")
        self.gone.set()


class ScriptedMaster:
    """Accepts connections; the test answers each message by hand. The greeting too, unless told so."""

    def __init__(self, url: str, peers: MemoryObjectReceiveStream[PeerScript]) -> None:
        self.url = url
        self.plugins = memory_plugins()
        self._peers = peers

    async def accept(self) -> PeerScript:
        """Return the next connection, its greeting still to be read."""
        with anyio.fail_after(WAIT_S):
            return await self._peers.receive()

    async def accept_framework(self, known: bool = False) -> PeerScript:
        """Return the next connection, whose Subscribe has been answered."""
        peer = await self.accept()
        await peer.expect(Subscribe)
        await peer.send(Subscribed(1, known, "m1"))
        return peer

    async def accept_operator(self) -> PeerScript:
        peer = await self.accept()
        await peer.expect(Greet)
        await peer.send(Greeted(1, "m1"))
        return peer


def memory_plugins() -> Plugins:
    """Return plugins of which only the memory transport is loaded."""
    plugins = Plugins(Config())
    plugins.add(memory_transport, "memory", "edgerm-core", "0")
    return plugins


_names = itertools.count()


@asynccontextmanager
async def scripted_master() -> AsyncIterator[ScriptedMaster]:
    listener = await MemoryTransport().listen(f"memory://scripted-{next(_names)}")
    streams: tuple[MemoryObjectSendStream[PeerScript], MemoryObjectReceiveStream[PeerScript]]
    streams = anyio.create_memory_object_stream[PeerScript](16)

    async def handle(connection: Connection) -> None:
        peer = PeerScript(connection)
        await streams[0].send(peer)
        await peer.gone.wait()

    with streams[0], streams[1]:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, handle)
            yield ScriptedMaster(listener.url, streams[1])
            group.cancel_scope.cancel()
        await listener.close()


@pytest.fixture
async def master() -> AsyncIterator[ScriptedMaster]:
    async with scripted_master() as made:
        yield made


class AutoMaster(Transport):
    """A transport behind which a small master lives, in the event loop of whoever connects.

    The blocking face has a loop of its own, which a listener of the test could not share. Every
    submitted task runs `compute` at once; one for which it returns None goes on until it is killed.
    """

    schemes = frozenset({"auto"})
    url = "auto://here"

    def __init__(self, compute: Callable[[TaskSpec], TaskUpdate | None]) -> None:
        self.compute = compute
        self.refuse_connections = False
        self.submits = 0
        self.most_live = 0
        self.killed: list[int] = []
        self.torn_down = False
        self.blobs: dict[bytes, bytes] = {}
        self._keys: dict[str, int] = {}
        self._updates: dict[int, TaskUpdate] = {}
        self._ids = itertools.count(1)
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def plugins(self) -> Plugins:
        plugins = Plugins(Config())
        plugins.add(_AutoPlugin(self), "auto", "test", "0")
        return plugins

    @property
    def live(self) -> int:
        """How many tasks have not ended."""
        return sum(not update.state.terminal for update in self._updates.values())

    async def listen(self, url: str) -> MemoryListener:
        raise NotImplementedError

    async def connect(self, url: str) -> Connection:
        if self.refuse_connections:
            raise TransportError("connection refused")
        listener = MemoryListener("auto", 1 << 20)
        connection = listener.accept(1 << 20)
        other = connection._other
        assert other is not None
        # A transport has no task group of its own; asyncio's tasks are what the portal's loop has.
        serving = asyncio.get_running_loop().create_task(self._serve(other))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return connection

    async def _serve(self, connection: Connection) -> None:
        try:
            while True:
                for message in decode_batch(await connection.receive()):
                    answers = self.answer(message)
                    if answers:
                        await connection.send(encode_batch(answers))
        except ConnectionClosed:
            pass

    def answer(self, message: AnyMessage) -> list[Message]:
        match message:
            case Subscribe():
                return [Subscribed(1, False)]
            case Greet():
                return [Greeted(1)]
            case Submit(request_id, keys, specs):
                self.submits += 1
                news: list[Message] = []
                for key, spec in zip(keys, specs, strict=True):
                    if key not in self._keys:
                        task_id = self._keys[key] = next(self._ids)
                        update = self.compute(spec) or TaskUpdate(0, 1, TaskState.RUNNING)  # type: ignore[arg-type]
                        self._set(task_id, update)
                        news.append(self._updates[task_id])
                self.most_live = max(self.most_live, self.live)
                ids = tuple((self._keys[key],) for key in keys)
                return [Submitted(request_id, ids), *news]  # type: ignore[arg-type]
            case KillTasks(request_id, ids):
                self.killed += ids
                for task_id in ids:
                    self._set(task_id, TaskUpdate(task_id, 99, TaskState.KILLED, "killed-by-request"))
                return [Done(request_id), *(self._updates[task_id] for task_id in ids)]
            case Reconcile(request_id, ids):
                return [*(self._updates[i] for i in ids if i in self._updates), Reconciled(request_id)]
            case Unsubscribe(request_id):
                self.torn_down = True
                return [Done(request_id)]
            case BlobOffer(request_id, blob, size):
                return [BlobState(request_id, blob, len(self.blobs.get(blob, b"")), size)]
            case BlobData(request_id, blob, offset, size, data):
                self.blobs[blob] = self.blobs.get(blob, b"")[:offset] + data
                return [BlobState(request_id, blob, len(self.blobs[blob]), size)]
            case LogGet(request_id, cancel=False):
                return [LogData(request_id, 0, b"hello\n"), LogData(request_id, 6, b"world\n", end=True)]
        return []

    def _set(self, task_id: int, update: TaskUpdate) -> None:
        self._updates[task_id] = TaskUpdate(
            task_id,  # type: ignore[arg-type]
            update.version,
            update.state,
            update.reason,
            update.message,
            "a1",
            1,
            result=update.result,
        )


class _AutoPlugin:
    def __init__(self, transport: AutoMaster) -> None:
        self._transport = transport

    @hookimpl
    def transports(self) -> list[Provider[Transport]]:
        return [Provider("auto", lambda _: self._transport, schemes=AutoMaster.schemes)]


def update(task_id: int, version: int, state: TaskState, **fields: Any) -> TaskUpdate:
    return TaskUpdate(TaskId(task_id), version, state, **fields)


@asynccontextmanager
async def connected(master: ScriptedMaster, **options: Any) -> AsyncIterator[tuple[Framework, PeerScript]]:
    """A framework and the master's end of its connection."""
    peers: list[PeerScript] = []

    async def accept() -> None:
        peers.append(await master.accept_framework())

    with anyio.fail_after(3 * WAIT_S):
        async with anyio.create_task_group() as group:
            group.start_soon(accept)
            async with connect_framework(master.url, plugins=master.plugins, **options) as framework:
                yield framework, peers[0]


class Doing:
    """A call that runs while the test plays the master."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.done = anyio.Event()

    async def run(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.result = await call()
        except Exception as error:
            self.error = error
        finally:
            self.done.set()

    async def value(self) -> Any:
        with anyio.fail_after(WAIT_S):
            await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


@asynccontextmanager
async def doing(call: Callable[[], Awaitable[Any]]) -> AsyncIterator[Doing]:
    made = Doing()
    async with anyio.create_task_group() as group:
        group.start_soon(made.run, call)
        yield made
        with anyio.fail_after(WAIT_S):
            await made.done.wait()


async def submit_one(framework: Framework, peer: PeerScript, task_id: int) -> Any:
    async with doing(lambda: framework.submit(HELLO, cpus=0.1)) as call:
        request = await peer.expect(Submit)
        await peer.send(Submitted(request.request_id, ((TaskId(task_id),),)))
    return await call.value()
