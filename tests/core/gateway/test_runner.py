"""A gateway agent as it runs, between a real master and scripted devices over memory connections."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from edgerm_core.agent.journal import Journal
from edgerm_core.agent.runner import run_agent
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.cli.main import first_leaf
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.config import Config, parse_config
from edgerm_core.errors import ConfigError, ConnectionClosed, TransportError
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import BlobId, FrameworkId, blob_id
from edgerm_core.interfaces import Connection
from edgerm_core.limits import BLOB_CHUNK_BYTES
from edgerm_core.master.runner import run_master
from edgerm_core.messages import (
    Acknowledge,
    Answer,
    BlobData,
    BlobGet,
    BlobOffer,
    BlobState,
    Failed,
    Greet,
    Heartbeat,
    HeartbeatAck,
    Launch,
    Message,
    Query,
    RefusalCode,
    Refused,
    Registered,
    StatusUpdate,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    TaskUpdate,
)
from edgerm_core.plugins import load_plugins
from edgerm_core.tasks import File, TaskState
from edgerm_core.testing.gateways import a_register
from edgerm_core.testing.masters import VERSIONS, spec

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
MessageT = TypeVar("MessageT")
_names = itertools.count()


class Peer:
    """One end of a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox: list[Message] = []

    async def send(self, *messages: Message) -> None:
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

    async def ended(self) -> Refused | None:
        """Wait for the end of the connection; return what it was told."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                try:
                    self.inbox += decode_batch(await self.connection.receive())
                except ConnectionClosed:
                    return next((m for m in self.inbox if isinstance(m, Refused)), None)


class Site:
    """Where a master and a gateway are, if they run."""

    def __init__(self, directory: Path) -> None:
        number = next(_names)
        self.directory = directory
        self.master_url = f"memory://gateway-master-{number}"
        self.url = f"memory://gateway-{number}"

    def config(self, more: str = "") -> Config:
        return parse_config(
            f"""\
            [plugins]
            enable = []
            [master]
            listen = [{json.dumps(self.master_url)}]
            data_dir = "{self.directory / "master"}"
            scheduler = "first-fit"
            heartbeat_s = 0.2
            # The devices of these tests send no heartbeats, however long the disk takes.
            lease_grace_s = 600
            [agent]
            masters = [{json.dumps(self.master_url)}]
            data_dir = "{self.directory / "agent"}"
            name = "gw"
            [gateway]
            listen = [{json.dumps(self.url)}]
            {more}
            """
        )

    @asynccontextmanager
    async def master(self) -> AsyncIterator[None]:
        config = self.config()
        ready = anyio.Event()
        on_ready: Callable[[list[str]], None] = lambda _: ready.set()  # noqa: E731
        async with anyio.create_task_group() as group:

            async def serve() -> None:
                await run_master(config, load_plugins(config), on_ready=on_ready)

            group.start_soon(serve)
            with anyio.fail_after(PATIENCE_S):
                await ready.wait()
            yield
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def gateway(self, more: str = "") -> AsyncIterator[None]:
        config = self.config(more)
        async with anyio.create_task_group() as group:
            group.start_soon(run_agent, config, load_plugins(config))
            yield
            group.cancel_scope.cancel()

    async def connect(self, url: str = "", max_message_bytes: int = 1 << 20) -> Peer:
        with anyio.fail_after(PATIENCE_S):
            while True:
                try:
                    return Peer(await MemoryTransport(max_message_bytes).connect(url or self.url))
                except TransportError:
                    await anyio.sleep(0.01)

    async def device(self, name: str = "d1", **fields: Any) -> Peer:
        """Connect and register a device; repeat until the gateway has met its master."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                device = await self.connect()
                await device.send(a_register(name, **fields))
                try:
                    await device.until(Registered)
                except ConnectionClosed:
                    await anyio.sleep(0.05)
                else:
                    return device

    async def agents(self) -> dict[str, dict[str, Any]]:
        operator = await self.connect(self.master_url)
        await operator.send(Greet(VERSIONS), Query(1, "agents"))
        rows = (await operator.until(Answer)).rows
        await operator.connection.close()
        return {row["name"]: row for row in rows}

    async def agent(self, name: str, **wanted: Any) -> None:
        """Wait until the master says that of an agent."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                row = (await self.agents()).get(name, {})
                if all(row.get(key) == value for key, value in wanted.items()):
                    return
                await anyio.sleep(0.02)

    async def framework(self) -> Peer:
        peer = await self.connect(self.master_url)
        await peer.send(Subscribe(VERSIONS, FrameworkInfo(FrameworkId("f"), "f")))
        await peer.until(Subscribed)
        return peer

    async def submit(self, framework: Peer, **fields: Any) -> None:
        await framework.send(Submit(1, ("k",), (spec(resources="", **fields),)))
        await framework.until(Submitted)


async def upload(framework: Peer, data: bytes) -> BlobId:
    blob = blob_id(data)
    await framework.send(BlobOffer(1, blob, len(data)))
    await framework.until(BlobState)
    for offset in range(0, len(data), BLOB_CHUNK_BYTES):
        piece = data[offset : offset + BLOB_CHUNK_BYTES]
        await framework.send(BlobData(1, blob, offset, len(data), piece))
        await framework.until(BlobState)
    return blob


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_a_device_works_through_the_gateway(site: Site) -> None:
    async with site.master(), site.gateway():
        device = await site.device()
        await site.agent("d1", connected=True, via="gw")
        framework = await site.framework()
        await site.submit(framework)
        launch = await device.until(Launch)
        await device.send(StatusUpdate(launch.task_id, 1, 1, TaskState.FINISHED, result=b"42"))
        assert await device.until(Acknowledge) == Acknowledge(launch.task_id, 1, 1)
        while (update := await framework.until(TaskUpdate)).state is not TaskState.FINISHED:
            pass
        assert update.result == b"42"
        await device.connection.close()
        await site.agent("d1", connected=False)


async def test_a_blob_is_fetched_once_and_served_in_pieces_that_fit(site: Site) -> None:
    data = bytes(range(256)) * 1000
    async with site.master(), site.gateway():
        framework = await site.framework()
        blob = await upload(framework, data)
        await site.device("d0")
        small = await site.device("d1")
        small.connection.max_message_bytes = 1 << 20
        await site.submit(framework, files=(File("data", blob),))
        cache = site.directory / "agent" / "blobs"
        with anyio.fail_after(PATIENCE_S):
            while not (cache / blob.hex()).exists():  # noqa: ASYNC110
                await anyio.sleep(0.02)
        received = b""
        while len(received) < len(data):
            await small.send(BlobGet(7, blob, len(received), 100_000))
            piece = await small.until(BlobData)
            assert (piece.request_id, piece.offset, piece.size) == (7, len(received), len(data))
            received += piece.data
        assert received == data
        await small.send(BlobGet(8, blob_id(b"nobody has it"), 0, 10))
        assert (await small.until(Failed)).code == RefusalCode.NOT_FOUND


async def test_without_the_master_custody_is_on_disk_before_the_device_is_told(site: Site) -> None:
    async with site.gateway():
        async with site.master():
            device = await site.device()
            await site.agent("d1", connected=True)
            framework = await site.framework()
            await site.submit(framework)
            launch = await device.until(Launch)
        await device.send(StatusUpdate(launch.task_id, 1, 1, TaskState.FINISHED, result=b"42"))
        assert await device.until(Acknowledge) == Acknowledge(launch.task_id, 1, 1)
        copy = site.directory / "copy"
        copy.write_bytes((site.directory / "agent" / "gateway" / "journal").read_bytes())
        journal = Journal(copy)
        assert len(journal.read()) >= 2
        journal.close()
    async with site.gateway(), site.master():
        framework = await site.framework()
        with anyio.fail_after(PATIENCE_S):
            while True:
                operator = await site.connect(site.master_url)
                await operator.send(Greet(VERSIONS), Query(1, "tasks"))
                (row,) = (await operator.until(Answer)).rows
                await operator.connection.close()
                if row["state"] == "FINISHED":
                    break
                await anyio.sleep(0.05)
        assert (row["result"], row["attempt"]) == (b"42", 1)


async def test_a_disk_that_refuses_leaves_the_update_with_the_device(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = anyio.Event()
    real = Journal.sync
    monkeypatch.setattr("edgerm_core.gateway.runner.DISK_RETRY_S", 0.05)
    monkeypatch.setattr(Journal, "sync", lambda journal: works.is_set() and real(journal))
    async with site.gateway():
        async with site.master():
            device = await site.device()
            await site.agent("d1", connected=True)
        await device.send(StatusUpdate(1, 1, 1, TaskState.FINISHED), Heartbeat())  # type: ignore[arg-type]
        await device.until(HeartbeatAck)
        await anyio.sleep(0.2)
        assert not any(isinstance(message, Acknowledge) for message in device.inbox)
        works.set()
        await device.until(Acknowledge)


async def test_who_does_not_speak_the_protocol_is_told_and_harms_nobody(site: Site) -> None:
    async with site.master(), site.gateway():
        device = await site.device()
        stranger = await site.connect()
        await stranger.connection.send(b"GET / HTTP/1.1")
        refused = await stranger.ended()
        assert refused is not None
        assert refused.code == RefusalCode.MALFORMED
        await device.send(Heartbeat())
        await device.until(HeartbeatAck)


async def test_a_gateway_without_a_master_asks_devices_to_come_back(site: Site) -> None:
    async with site.gateway():
        device = await site.connect()
        await device.send(a_register())
        refused = await device.ended()
        assert refused is not None
        assert refused.code == RefusalCode.NO_MASTER


async def test_listening_off_loopback_must_be_allowed(site: Site) -> None:
    config = parse_config('[agent]\nmasters = ["memory://x"]\n[gateway]\nlisten = ["ws://0.0.0.0:0"]')
    with pytest.raises(ConfigError, match=r"gateway\.insecure: refusing to listen .* pose as a device"):
        await run_agent(config, load_plugins(config))


async def test_an_address_that_is_taken_ends_the_agent_with_a_sentence(site: Site) -> None:
    listener = await MemoryTransport().listen(site.url)
    config = site.config()
    with pytest.raises((TransportError, ExceptionGroup)) as caught:
        await run_agent(config, load_plugins(config))
    assert "already in use" in str(first_leaf(caught.value))
    await listener.close()


async def test_an_agent_that_is_no_gateway_listens_nowhere(site: Site) -> None:
    quiet = parse_config(
        f'[plugins]\nenable = []\n[agent]\nmasters = ["memory://nobody"]\ndata_dir = "{site.directory}/q"'
    )
    async with anyio.create_task_group() as group:
        group.start_soon(run_agent, quiet, load_plugins(quiet))
        with anyio.fail_after(PATIENCE_S):
            while not (site.directory / "q" / "journal").exists():  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert not (site.directory / "q" / "gateway").exists()
        group.cancel_scope.cancel()
