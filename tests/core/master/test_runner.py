"""The master with its I/O, over the memory transport and the real store: order, limits, faults."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from edgerm_core import limits
from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.builtin.sqlite_store import FILE_NAME, open_store
from edgerm_core.cli.main import first_leaf
from edgerm_core.clock import SteadyClock
from edgerm_core.codec import decode_batch, encode, encode_batch
from edgerm_core.config import Config, parse_config
from edgerm_core.errors import (
    ConfigError,
    ConnectionClosed,
    PluginError,
    StoreError,
    StoreLocked,
    TransportError,
)
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.hookspecs import hookimpl
from edgerm_core.ids import AgentId, BlobId, FrameworkId, TaskId, blob_id
from edgerm_core.interfaces import Connection, Listener, Provider, Store, StoreOpener, Transport, Write
from edgerm_core.master import frameworks, machine, sessions
from edgerm_core.master import port as port_module
from edgerm_core.master import runner as runner_module
from edgerm_core.master.effects import Commit, Effect, Report
from edgerm_core.master.events import Event, Received
from edgerm_core.master.runner import choose_scheduler, merge_writes, run_master
from edgerm_core.messages import (
    Answer,
    BlobData,
    BlobGet,
    BlobOffer,
    BlobState,
    Failed,
    Greet,
    Greeted,
    Heartbeat,
    HeartbeatAck,
    KillTasks,
    Launch,
    Message,
    Query,
    RefusalCode,
    Refused,
    Register,
    Registered,
    StatusUpdate,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    TaskReport,
    TaskUpdate,
)
from edgerm_core.observers import Observer, Row
from edgerm_core.plugins import Plugins, load_plugins
from edgerm_core.resources import Resources
from edgerm_core.tasks import File, TaskState
from edgerm_core.testing.masters import VERSIONS, spec

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
MessageT = TypeVar("MessageT")
_names = itertools.count()


class Client:
    """One end of a connection to the master."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox: list[Message] = []

    async def send(self, *messages: Message) -> None:
        with anyio.fail_after(PATIENCE_S):
            await self.connection.send(encode_batch(messages))

    async def until(self, kind: type[MessageT]) -> MessageT:
        """Return and remove the next message of a kind; others stay in the inbox."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                for index, message in enumerate(self.inbox):
                    if isinstance(message, kind):
                        del self.inbox[index]
                        return message
                self.inbox += decode_batch(await self.connection.receive())

    async def ask(self, message: Message, kind: type[MessageT]) -> MessageT:
        await self.send(message)
        return await self.until(kind)

    async def ended(self) -> Refused | None:
        """Wait for the end of the connection; return why the master ended it, if it said so."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                try:
                    self.inbox += decode_batch(await self.connection.receive())
                except ConnectionClosed:
                    return next((m for m in self.inbox if isinstance(m, Refused)), None)


class Bench:
    """A running master and those who talk to it."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url = url
        self.data_dir = data_dir
        self.scope = anyio.CancelScope()
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(await MemoryTransport().connect(self.url))
        self._clients.append(client)
        return client

    async def framework(self, name: str = "f1", **info: Any) -> Client:
        client = await self.connect()
        subscribe = Subscribe(VERSIONS, FrameworkInfo(FrameworkId(name), name, **info))
        await client.ask(subscribe, Subscribed)
        return client

    async def agent(self, name: str = "a1", tasks: tuple[TaskReport, ...] = ()) -> Client:
        client = await self.connect()
        resources = Resources.parse("cpus:4;mem:1000")
        info = AgentInfo(AgentId(name), name, resources, executors=(Fingerprint("test"),))
        await client.ask(Register(VERSIONS, info, "b1", "i1", tasks), Registered)
        return client

    async def operator(self) -> Client:
        client = await self.connect()
        await client.ask(Greet(VERSIONS), Greeted)
        return client


class DoubleStore(Store):
    """The real store, which notes each commit and fails while the test wants it to."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.commits: list[list[Write]] = []
        self.failing = False
        self.tried = threading.Event()
        self.gate: threading.Event | None = None

    def load(self) -> Iterator[tuple[str, bytes, bytes]]:
        return self.inner.load()

    def commit(self, writes: Sequence[Write]) -> None:
        gate = self.gate
        self.tried.set()
        if gate is not None:
            assert gate.wait(PATIENCE_S)
        if self.failing:
            raise StoreError("the disk is full: make room")
        self.inner.commit(writes)
        self.commits.append(list(writes))

    def close(self) -> None:
        self.inner.close()


class Doubles:
    """A plugin with the store double and an observer, for the test to look into."""

    def __init__(self) -> None:
        self.store: DoubleStore | None = None
        self.observer: Observer = Observer()

    @hookimpl
    def stores(self) -> Iterable[Provider[StoreOpener]]:
        def opener(data_dir: Path) -> Store:
            self.store = DoubleStore(open_store(data_dir))
            return self.store

        return [Provider("double", lambda _: opener)]

    @hookimpl
    def observers(self) -> Iterable[Provider[Observer]]:
        return [Provider("seen", lambda _: self.observer)]


@pytest.fixture
def doubles() -> Doubles:
    return Doubles()


@pytest.fixture
def master(tmp_path: Path, doubles: Doubles) -> Callable[..., Any]:
    """Run a master as a context manager; keys of `[master]` and more TOML as arguments."""

    @asynccontextmanager
    async def run(more: str = "", *, data_dir: Path | None = None, **keys: Any) -> AsyncIterator[Bench]:
        bench = Bench(f"memory://runner-{next(_names)}", data_dir or tmp_path / "master")
        config = configure(bench.url, bench.data_dir, more, **keys)
        ready = anyio.Event()

        def on_ready(urls: list[str]) -> None:
            assert urls == [bench.url]
            ready.set()

        async def serve() -> None:
            with bench.scope:
                await run_master(config, with_doubles(config, doubles), on_ready=on_ready)

        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            with anyio.fail_after(PATIENCE_S):
                await ready.wait()
            yield bench
            bench.scope.cancel()

    return run


def configure(url: str, data_dir: Path, more: str = "", **keys: Any) -> Config:
    # The agents of these tests send no heartbeats, however long the disk takes.
    keys.setdefault("lease_grace_s", 600)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return parse_config(
        f'[plugins]\nenable = []\n[master]\nlisten = ["{url}"]\ndata_dir = "{data_dir}"\n{lines}{more}'
    )


def with_doubles(config: Config, doubles: Doubles) -> Plugins:
    plugins = load_plugins(config)
    plugins.add(doubles, "doubles", "tests", "0")
    return plugins


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - of what another thread or a log handler sees.
            await anyio.sleep(0.005)


# --- the whole way --------------------------------------------------------------------------------


async def test_a_task_goes_its_way_through_the_running_master(master: Any) -> None:
    async with master() as bench:
        agent, framework = await bench.agent(), await bench.framework()
        submitted = await framework.ask(Submit(1, ("k",), (spec(),)), Submitted)
        launch = await agent.until(Launch)
        assert submitted.task_ids == ((launch.task_id,),)
        await agent.send(StatusUpdate(launch.task_id, 1, 1, TaskState.RUNNING))
        await agent.send(StatusUpdate(launch.task_id, 1, 2, TaskState.FINISHED, result=b"42"))
        while (update := await framework.until(TaskUpdate)).state is not TaskState.FINISHED:
            pass
        assert update.result == b"42"


async def test_records_outlive_the_master(master: Any) -> None:
    async with master() as bench:
        framework = await bench.framework()
        await framework.ask(Submit(1, ("k",), (spec(),)), Submitted)
    async with master() as bench:
        framework = await bench.framework()
        assert (await framework.ask(Submit(2, ("k",), (spec(),)), Submitted)).task_ids == ((TaskId(1),),)
        operator = await bench.operator()
        answer = await operator.ask(Query(1, "tasks"), Answer)
        assert [row["id"] for row in answer.rows] == ["t1"]


async def test_time_goes_on_from_the_last_record_although_the_machines_clock_went_back(
    master: Any, tmp_path: Path, doubles: Doubles
) -> None:
    async def uptime_and_now() -> tuple[float, float]:
        async with master() as bench:
            operator = await bench.operator()
            (row,) = (await operator.ask(Query(1, "cluster"), Answer)).rows
            return row["uptime_s"], row["now"]

    _, before = await uptime_and_now()

    class StuckIn1970(SteadyClock):
        def __init__(self, not_before: float = 0.0) -> None:
            super().__init__(not_before, wall=lambda: 5.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_module, "SteadyClock", StuckIn1970)
        uptime, after = await uptime_and_now()
    assert before <= after < before + 60
    assert 0 <= uptime < 60


# --- written before it is said --------------------------------------------------------------------


def written(store: DoubleStore, kind: str) -> int:
    return sum(1 for commit in store.commits for write in commit if write.kind == kind)


async def test_nothing_is_said_before_it_is_written(master: Any, doubles: Doubles) -> None:
    async with master(store="double") as bench:
        framework = await bench.framework()
        store = doubles.store
        assert store is not None
        before = written(store, "task")
        store.gate = threading.Event()
        store.tried.clear()
        await framework.send(Submit(1, ("k",), (spec(),)))
        await anyio.to_thread.run_sync(store.tried.wait, PATIENCE_S)
        with anyio.move_on_after(0.1) as waited:
            await framework.until(Submitted)
        assert waited.cancelled_caught, "answered while the write was under way"
        store.gate.set()
        store.gate = None
        await framework.until(Submitted)
        assert written(store, "task") > before


async def test_every_answer_finds_its_records_in_the_store(master: Any, doubles: Doubles) -> None:
    async with master(store="double") as bench:
        agent, framework = await bench.agent(), await bench.framework()
        store = doubles.store
        assert store is not None
        for number in range(10):
            submitted = await framework.ask(
                Submit(number, (f"k{number}",), (spec(resources="cpus:0.1"),)), Submitted
            )
            ((task_id,),) = submitted.task_ids
            places = {(w.kind, w.key) for commit in store.commits for w in commit}
            assert {("task", task_id.to_bytes(8, "big")), ("spec", task_id.to_bytes(8, "big"))} <= places
            assert (await agent.until(Launch)).task_id == task_id


async def test_while_the_disk_refuses_nothing_leaves_and_then_it_goes_on(
    master: Any, doubles: Doubles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.02)
    async with master(store="double") as bench:
        agent, framework = await bench.agent(), await bench.framework()
        store = doubles.store
        assert store is not None
        store.failing = True
        store.tried.clear()
        await framework.send(Submit(1, ("k",), (spec(),)))
        await anyio.to_thread.run_sync(store.tried.wait, PATIENCE_S)
        for peer, kind in ((framework, Submitted), (agent, Launch)):
            with anyio.move_on_after(0.1) as waited:
                await peer.until(kind)
            assert waited.cancelled_caught, f"{kind.__name__} left although nothing could be written"
        said = "the disk is full: make room; nothing is sent until it can be written"
        await eventually(lambda: said in caplog.text)
        store.failing = False
        await framework.until(Submitted)
        await agent.until(Launch)


async def test_a_disk_that_refuses_for_ever_ends_the_master(
    master: Any, doubles: Doubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.02)
    monkeypatch.setattr(runner_module, "STORE_PATIENCE_S", 0.1)

    async def a_day_with_a_full_disk() -> None:
        async with master(store="double") as bench:
            framework = await bench.framework()
            assert doubles.store is not None
            doubles.store.failing = True
            await framework.send(Submit(1, ("k",), (spec(),)))
            await anyio.sleep(PATIENCE_S)

    with pytest.raises(BaseExceptionGroup) as caught:
        await a_day_with_a_full_disk()
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StoreError)
    # And the data directory is free for the next one, which finds what had been written.
    async with master() as bench:
        await bench.framework()


async def test_a_master_stopped_while_the_disk_refused_leaves_a_store_that_can_be_read(
    master: Any, doubles: Doubles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch the disk had refused was dropped and later ones were written: tasks without specs,
    which the next master could not read."""
    monkeypatch.setattr(runner_module, "STORE_RETRY_S", 0.02)
    handled: list[object] = []
    handle = machine.Machine.handle

    def noting(self: machine.Machine, event: Event, now: float) -> list[Effect]:
        effects = handle(self, event, now)
        handled.append(event.message if isinstance(event, Received) else None)
        return effects

    monkeypatch.setattr(machine.Machine, "handle", noting)
    killed = StatusUpdate(TaskId(1), 1, 1, TaskState.KILLED)
    async with master(store="double") as bench:
        agent, framework = await bench.agent(), await bench.framework()
        store = doubles.store
        assert store is not None
        store.failing = True
        store.tried.clear()
        await framework.send(Submit(1, ("k",), (spec(),)))
        await anyio.to_thread.run_sync(store.tried.wait, PATIENCE_S)
        await framework.send(KillTasks(2, (TaskId(1),)))
        await eventually(lambda: KillTasks(2, (TaskId(1),)) in handled)
        await agent.send(killed)
        await eventually(lambda: killed in handled)
        monkeypatch.setattr(runner_module, "STORE_RETRY_S", 2 * PATIENCE_S)
        # The committer says so and then sleeps: longer than this test, from the next time on.
        caplog.clear()
        await eventually(lambda: "the disk is full" in caplog.text)
        store.failing = False
        bench.scope.cancel()
    async with master() as bench:
        operator = await bench.operator()
        (row,) = (await operator.ask(Query(1, "tasks"), Answer)).rows
        assert (row["id"], row["state"]) == ("t1", "KILLED")


def test_merging_keeps_the_last_write_of_each_record() -> None:
    effects: list[Effect] = [
        Commit([Write("task", b"1", b"a"), Write("task", b"2", b"b")]),
        Report(logging.INFO, "between"),
        Commit([Write("task", b"1", None), Write("agent", b"1", b"x")]),
    ]
    assert sorted(merge_writes(effects), key=lambda w: (w.kind, w.key)) == [
        Write("agent", b"1", b"x"),
        Write("task", b"1", None),
        Write("task", b"2", b"b"),
    ]


# --- peers that misbehave -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame", [b"", b"\xff", b"\x00" * 50, encode(Heartbeat())[:-1] + b"\x9f", b"\x81\x18\x63"]
)
async def test_a_malformed_frame_ends_only_its_own_session(master: Any, frame: bytes) -> None:
    async with master() as bench:
        bystander, culprit = await bench.framework("good"), await bench.framework("bad")
        await culprit.connection.send(frame)
        refused = await culprit.ended()
        assert refused is not None
        assert refused.code == RefusalCode.MALFORMED
        assert await bystander.ask(Submit(1, ("k",), (spec(),)), Submitted)


async def test_a_malformed_frame_behind_good_ones_loses_none_of_these(master: Any) -> None:
    async with master() as bench:
        framework = await bench.framework("f1")
        await framework.send(Submit(1, ("k",), (spec(),)))
        await framework.connection.send(b"\xff\xff")
        refused = await framework.ended()
        assert refused is not None
        operator = await bench.operator()
        assert (await operator.ask(Query(1, "tasks"), Answer)).total == 1


async def test_a_slow_reader_is_cut_off_at_the_limit_of_its_outbox(
    master: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(port_module, "SESSION_OUTBOX_BYTES", 1 << 20)
    monkeypatch.setattr(runner_module, "CLOSE_FLUSH_S", 0.1)
    async with master() as bench:
        framework = await bench.framework("f1")
        big = spec(env={"X": "x" * 60_000}, name="n" * 60)
        for number in range(4):
            await framework.ask(Submit(number, (f"k{number}",), (big,)), Submitted)
        slow = await bench.operator()
        reader = await bench.operator()
        said = "reads too slowly and is disconnected"
        with anyio.fail_after(2 * PATIENCE_S), contextlib.suppress(ConnectionClosed):
            while said not in caplog.text:
                # Each answer is the whole story of everything; nobody reads them.
                with anyio.move_on_after(0.05):
                    await slow.send(*(Query(1, "tasks", {"limit": 100}) for _ in range(200)))
        await eventually(lambda: said in caplog.text)
        assert (await reader.ask(Query(1, "cluster"), Answer)).total == 1
        refused = await slow.ended()
        assert refused is None or refused.code == RefusalCode.SLOW


async def test_a_flood_from_one_session_starves_nobody(master: Any) -> None:
    async with master() as bench:
        flooder, other = await bench.operator(), await bench.operator()
        drained = 0

        async def flood() -> None:
            frame = encode_batch(Query(n, "cluster") for n in range(50))
            while True:
                await flooder.connection.send(frame)

        async def drain() -> None:
            nonlocal drained
            while True:
                drained += len(decode_batch(await flooder.connection.receive()))

        async with anyio.create_task_group() as group:
            group.start_soon(flood)
            group.start_soon(drain)
            for number in range(20):
                await other.ask(Query(number, "cluster"), Answer)
            # Counted, not timed: between two answers of the other, the flooder got some inboxes full.
            assert 0 < drained < 20 * 10 * limits.SESSION_INBOX_FRAMES * 50
            group.cancel_scope.cancel()


async def test_an_exception_in_a_handler_cuts_off_its_peer_and_nobody_else(
    master: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug for this test")

    monkeypatch.setitem(machine._FRAMEWORK, KillTasks, broken)
    async with master() as bench:
        culprit, other = await bench.framework("f1"), await bench.framework("f2")
        await culprit.send(KillTasks(1, (TaskId(1),)))
        refused = await culprit.ended()
        assert refused is not None
        assert refused.code == RefusalCode.INTERNAL
        assert refused.message == "the master could not handle a KillTasks; its log says why"
        assert await other.ask(Submit(1, ("k",), (spec(),)), Submitted)
        assert (await bench.framework("f1")) is not None
    assert "handling KillTasks failed; please report this" in caplog.text
    assert "a bug for this test" in caplog.text


async def test_an_exception_at_the_end_of_a_batch_loses_no_record(
    master: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"times": 0}
    real = frameworks.send_news

    def news(state: Any) -> None:
        if state.news and broken["times"] == 0:
            broken["times"] += 1
            raise ZeroDivisionError("a bug for this test")
        real(state)

    async with master() as bench:
        framework = await bench.framework("f1")
        monkeypatch.setattr(frameworks, "send_news", news)
        assert (await framework.ask(Submit(1, ("k",), (spec(),)), Submitted)).task_ids
        assert broken["times"] == 1
    async with master() as bench:
        operator = await bench.operator()
        assert (await operator.ask(Query(1, "tasks"), Answer)).total == 1


async def test_a_message_larger_than_the_peer_takes_is_left_out_with_an_answer(
    master: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.master.queries.ANSWER_BYTES", 1 << 30)
    async with master() as bench:
        framework = await bench.framework("f1")
        big = spec(instances=limits.MAX_SUBMIT_TASKS)
        await framework.ask(Submit(1, ("k",), (big,)), Submitted)
        operator = await bench.operator()
        failed = await operator.ask(Query(7, "tasks", {"limit": limits.QUERY_MAX_ROWS}), Failed)
        assert (failed.request_id, failed.code) == (7, RefusalCode.LIMIT)
        assert "ask for less, with a limit" in failed.message
        assert len((await operator.ask(Query(8, "tasks", {"limit": 5}), Answer)).rows) == 5


async def test_news_of_ten_thousand_tasks_come_in_frames_the_peer_takes(master: Any) -> None:
    """They fitted into one frame by their bytes, and the framework refused it for their number."""
    async with master() as bench:
        framework = await bench.framework("f1")
        submit = Submit(1, ("k",), (spec(instances=limits.MAX_SUBMIT_TASKS),))
        await framework.send(submit)
        frames, updates = 0, 0
        with anyio.fail_after(PATIENCE_S):
            while updates < limits.MAX_SUBMIT_TASKS:
                messages = decode_batch(await framework.connection.receive())
                frames += 1
                updates += sum(isinstance(message, TaskUpdate) for message in messages)
        assert frames >= 3


async def test_a_connection_that_greets_nobody_is_closed_in_time(
    master: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "GREETING_TIMEOUT_S", 0.1)
    async with master() as bench:
        refused = await (await bench.connect()).ended()
        assert refused is not None
        assert refused.code == RefusalCode.UNEXPECTED


# --- blobs ----------------------------------------------------------------------------------------

DATA = bytes(range(256)) * 1024  # 256 KiB: several chunks
BLOB = blob_id(DATA)


async def upload(client: Client, data: bytes, *, stop_at: int | None = None) -> int:
    blob = blob_id(data)
    state = await client.ask(BlobOffer(1, blob, len(data)), BlobState)
    while state.have < (stop_at or len(data)):
        piece = data[state.have : state.have + limits.BLOB_CHUNK_BYTES]
        state = await client.ask(BlobData(1, blob, state.have, len(data), piece), BlobState)
    return state.have


async def download(client: Client, blob: BlobId, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await client.ask(BlobGet(2, blob, len(data), size), BlobData)
        assert (piece.offset, piece.size) == (len(data), size)
        assert 0 < len(piece.data) <= limits.BLOB_CHUNK_BYTES
        data += piece.data
    return data


async def test_a_blob_goes_up_and_down_and_its_task_starts(master: Any) -> None:
    async with master() as bench:
        agent, framework = await bench.agent(), await bench.framework()
        await framework.ask(Submit(1, ("k",), (spec(files=(File("data", BLOB),)),)), Submitted)
        await upload(framework, DATA)
        assert (await agent.until(Launch)).files[0].blob == BLOB
        assert await download(agent, BLOB, len(DATA)) == DATA


async def test_an_upload_goes_on_after_the_connection_and_the_master_were_gone(master: Any) -> None:
    async with master() as bench:
        framework = await bench.framework()
        reached = await upload(framework, DATA, stop_at=100_000)
        await framework.connection.close()
        again = await bench.framework()
        assert (await again.ask(BlobOffer(1, BLOB, len(DATA)), BlobState)).have == reached
    async with master() as bench:
        framework = await bench.framework()
        assert (await framework.ask(BlobOffer(1, BLOB, len(DATA)), BlobState)).have == reached
        await upload(framework, DATA)
        assert await download(framework, BLOB, len(DATA)) == DATA
    async with master() as bench:
        operator = await bench.operator()
        (row,) = (await operator.ask(Query(1, "cluster"), Answer)).rows
        assert (row["blobs"], row["blob_bytes"]) == (1, len(DATA))


async def test_a_wrong_hash_a_wrong_size_and_an_absent_blob_fail_with_a_sentence(master: Any) -> None:
    async with master(max_blob_bytes=1 << 20) as bench:
        framework = await bench.framework()
        wrong = await framework.ask(BlobData(3, BLOB, 0, 4, b"abcd"), Failed)
        assert (wrong.request_id, wrong.code) == (3, RefusalCode.SPEC)
        assert "send it again" in wrong.message
        large = await framework.ask(BlobOffer(4, BLOB, 2 << 20), Failed)
        assert "larger than the 1 MiB this master takes" in large.message
        absent = await framework.ask(BlobGet(5, BLOB, 0, 10), Failed)
        assert (absent.request_id, absent.code) == (5, RefusalCode.NOT_FOUND)
        await upload(framework, DATA)


async def test_blobs_are_only_for_peers_that_have_greeted_and_agents_do_not_upload(master: Any) -> None:
    async with master() as bench:
        stranger = await bench.connect()
        await stranger.send(BlobOffer(1, BLOB, 10))
        refused = await stranger.ended()
        assert refused is not None
        assert refused.code == RefusalCode.UNEXPECTED
        agent = await bench.agent()
        await agent.send(BlobOffer(1, BLOB, 10))
        refused = await agent.ended()
        assert refused is not None
        assert refused.message == "agents do not upload blobs"


async def test_an_offer_in_the_same_frame_as_the_greeting_is_answered(master: Any) -> None:
    async with master() as bench:
        client = await bench.connect()
        await client.send(Subscribe(VERSIONS, FrameworkInfo(FrameworkId("f1"))))
        await client.send(BlobOffer(1, BLOB, len(DATA)))
        assert (await client.until(BlobState)).have == 0


async def test_old_blobs_make_room_and_those_of_live_tasks_stay(master: Any) -> None:
    async with master(blob_store_bytes=300_000) as bench:
        framework = await bench.framework()
        needed, idle = b"n" * 100_000, b"i" * 100_000
        await framework.ask(
            Submit(1, ("k",), (spec(resources="cpus:99", files=(File("x", blob_id(needed)),)),)), Submitted
        )
        await upload(framework, needed)
        await upload(framework, idle)
        await upload(framework, b"x" * 150_000)
        assert await download(framework, blob_id(needed), len(needed)) == needed
        assert (await framework.ask(BlobGet(1, blob_id(idle), 0, 1), Failed)).code == RefusalCode.NOT_FOUND
        operator = await bench.operator()
        (row,) = (await operator.ask(Query(1, "cluster"), Answer)).rows
        assert row["blobs"] == 2


# --- observers ------------------------------------------------------------------------------------


class Seen(Observer):
    def __init__(self) -> None:
        self.rows: list[tuple[str, Row]] = []
        self.closed = False

    def task_changed(self, task: Row) -> None:
        self.rows.append(("task", task))

    def agent_changed(self, agent: Row) -> None:
        self.rows.append(("agent", agent))

    def framework_changed(self, framework: Row) -> None:
        self.rows.append(("framework", framework))

    def close(self) -> None:
        self.closed = True


async def test_observers_hear_of_changes_after_they_are_written_and_of_the_end(
    master: Any, doubles: Doubles
) -> None:
    doubles.observer = seen = Seen()
    async with master("[observer.seen]\n", store="double") as bench:
        await bench.agent()
        framework = await bench.framework()
        await framework.ask(Submit(1, ("k",), (spec(),)), Submitted)
    kinds = [kind for kind, _ in seen.rows]
    assert {"agent", "framework", "task"} <= set(kinds)
    assert [row["state"] for kind, row in seen.rows if kind == "task"][-1] == "STAGING"
    assert seen.closed


async def test_an_observer_without_a_section_is_not_called(master: Any, doubles: Doubles) -> None:
    doubles.observer = seen = Seen()
    async with master() as bench:
        await bench.agent()
    assert not seen.rows


async def test_a_failing_observer_is_named_and_dropped_and_its_end_harms_nobody(
    master: Any, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Seen):
        calls = 0

        def task_changed(self, task: Row) -> None:
            self.calls += 1
            raise OSError("disk full")

    class FailingAtTheEnd(Seen):
        def close(self) -> None:
            raise OSError("cannot flush")

    doubles.observer = failing = Failing()
    async with master("[observer.seen]\n") as bench:
        framework = await bench.framework()
        for number in range(3):
            await framework.ask(Submit(number, (f"k{number}",), (spec(),)), Submitted)
    assert failing.calls == 1
    assert "observer seen failed and is not called again: disk full" in caplog.text
    doubles.observer = FailingAtTheEnd()
    async with master("[observer.seen]\n") as bench:
        await bench.framework()
    assert "observer seen failed at its end: cannot flush" in caplog.text


# --- starting -------------------------------------------------------------------------------------


async def start(config: Config, doubles: Doubles) -> None:
    with anyio.fail_after(PATIENCE_S):
        await run_master(config, with_doubles(config, doubles))


async def test_a_second_master_on_the_data_directory_is_refused(master: Any, doubles: Doubles) -> None:
    async with master() as bench:
        with pytest.raises(StoreLocked, match="owned by another master"):
            await start(configure("memory://other", bench.data_dir), doubles)
        await bench.operator()


async def test_an_address_that_is_taken_is_said_so_and_the_directory_is_free_again(
    master: Any, doubles: Doubles, tmp_path: Path
) -> None:
    async with master() as bench:
        with pytest.raises(TransportError, match="already in use"):
            await start(configure(bench.url, tmp_path / "other"), doubles)
    open_store(tmp_path / "other").close()


async def test_of_two_addresses_the_first_is_closed_again_if_the_second_is_taken(
    master: Any, doubles: Doubles, tmp_path: Path
) -> None:
    async with master() as bench:
        config = parse_config(
            f'[plugins]\nenable = []\n[master]\nlisten = ["memory://free-one", "{bench.url}"]\n'
            f'data_dir = "{tmp_path}/other"\n'
        )
        with pytest.raises(TransportError, match="already in use"):
            await start(config, doubles)
        listener = await MemoryTransport().listen("memory://free-one")
        await listener.close()


async def test_off_loopback_nobody_listens_by_accident(doubles: Doubles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"master\.insecure: refusing to listen on ws://0\.0\.0\.0:7070"):
        await start(configure("ws://0.0.0.0:7070", tmp_path / "m"), doubles)
    assert not (tmp_path / "m").exists()


async def test_what_is_not_installed_is_named(doubles: Doubles, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no scheduler 'astrology' is installed"):
        await start(configure("memory://x", tmp_path / "m", scheduler="astrology"), doubles)
    with pytest.raises(PluginError, match="no store 'paper' is installed"):
        await start(configure("memory://x", tmp_path / "m", store="paper"), doubles)
    with pytest.raises(PluginError, match="'carrier-pigeon'"):
        await start(configure("carrier-pigeon://127.0.0.1", tmp_path / "m"), doubles)


async def test_a_damaged_store_is_refused_with_what_to_do(master: Any, doubles: Doubles) -> None:
    async with master() as bench:
        await bench.framework()
    store = open_store(bench.data_dir)
    store.commit([Write("framework", b"f1", b"\xc1")])
    store.close()
    with pytest.raises(
        StoreError, match=r"a framework record is damaged .*: restore the store from a backup"
    ):
        await start(configure("memory://x", bench.data_dir), doubles)
    bench.data_dir.joinpath(FILE_NAME).unlink()
    for path in bench.data_dir.glob(FILE_NAME + "-*"):
        path.unlink()
    async with master() as bench:
        await bench.framework()


def test_fair_sharing_is_the_default_where_it_is_installed() -> None:
    config = Config()
    plugins = load_plugins(config)
    assert choose_scheduler(config, plugins) == (
        "drf" if "drf" in plugins.names("scheduler") else "first-fit"
    )
    plain = parse_config("[plugins]\nenable = []\n")
    assert choose_scheduler(plain, load_plugins(plain)) == "first-fit"
    chosen = parse_config('[master]\nscheduler = "mine"\n')
    assert choose_scheduler(chosen, load_plugins(plain)) == "mine"


async def test_heartbeats_are_answered_while_the_store_is_slow(master: Any, doubles: Doubles) -> None:
    """An agent must not lose its lease because the disk takes its time: acknowledgements without
    records follow the batch before them, so they wait at most for one write."""
    async with master(store="double") as bench:
        agent = await bench.agent()
        for _ in range(5):
            await agent.ask(Heartbeat(), HeartbeatAck)


# --- plugins that do what they should not ----------------------------------------------------------


class Wrong:
    """A plugin of which each part fails in its own way."""

    @hookimpl
    def stores(self) -> Iterable[Provider[StoreOpener]]:
        class Unreadable(DoubleStore):
            def load(self) -> Iterator[Any]:
                return iter(["nonsense"])

        class Unwritable(DoubleStore):
            def commit(self, writes: Sequence[Write]) -> None:
                raise ZeroDivisionError("by zero")

        def unopened(data_dir: Path) -> Store:
            raise ZeroDivisionError("by zero")

        yield Provider("unopened", lambda _: unopened)
        yield Provider("unreadable", lambda _: lambda data_dir: Unreadable(open_store(data_dir)))
        yield Provider("unwritable", lambda _: lambda data_dir: Unwritable(open_store(data_dir)))

    @hookimpl
    def observers(self) -> Iterable[Provider[Observer]]:
        def create(section: object) -> Observer:
            raise ZeroDivisionError("by zero")

        yield Provider("wrong", create)

    @hookimpl
    def transports(self) -> Iterable[Provider[Transport]]:
        class Deaf(MemoryTransport):
            async def listen(self, url: str) -> Any:
                raise ZeroDivisionError("by zero")

        class Unserved(Listener):
            url = "impatient://x"

            async def serve(self, handler: object) -> None:
                raise ZeroDivisionError("by zero")

            async def close(self) -> None:
                pass

        class Impatient(MemoryTransport):
            async def listen(self, url: str) -> Any:
                return Unserved()

        yield Provider("deaf", lambda _: Deaf(), schemes=frozenset({"deaf"}))
        yield Provider("impatient", lambda _: Impatient(), schemes=frozenset({"impatient"}))


async def test_an_observer_that_cannot_be_created_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"memory://runner-{next(_names)}"
    config = configure(url, tmp_path / "m", "[observer.wrong]\n[observer.absent]\n")
    plugins = load_plugins(config)
    plugins.add(Wrong(), "wrong", "tests", "0")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:

            def ready(urls: list[str]) -> None:
                group.cancel_scope.cancel()

            group.start_soon(partial(run_master, config, plugins, on_ready=ready))
    assert (
        "observer wrong is left out: plugin wrong: observer cannot be created: ZeroDivisionError"
        in caplog.text
    )
    assert "observer absent is left out: plugin absent: no observer 'absent' is installed" in caplog.text


@pytest.mark.parametrize(
    ("url", "store", "sentence"),
    [
        ("memory://x", "unopened", "plugin unopened: store failed: ZeroDivisionError: by zero"),
        ("memory://x", "unreadable", "plugin unreadable: store failed: ValueError"),
        ("memory://x", "unwritable", "plugin Unwritable: store failed: ZeroDivisionError: by zero"),
        ("deaf://x", "sqlite", "plugin deaf://x: transport failed: ZeroDivisionError: by zero"),
        ("impatient://x", "sqlite", "plugin impatient://x: transport failed: ZeroDivisionError"),
    ],
)
async def test_what_the_master_cannot_do_without_ends_it_with_one_sentence(
    url: str, store: str, sentence: str, tmp_path: Path
) -> None:
    config = configure(url, tmp_path / "m", store=store, insecure=True)
    plugins = load_plugins(config)
    plugins.add(Wrong(), "wrong", "tests", "0")
    with anyio.fail_after(PATIENCE_S), pytest.raises((PluginError, ExceptionGroup)) as caught:
        await run_master(config, plugins)
    assert sentence in str(first_leaf(caught.value))
