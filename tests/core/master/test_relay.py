"""Channels of a gateway: connections like any other, and a gateway with a real master around them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.builtin.memory_transport import MemoryTransport
from edgerm_core.codec import decode_batch, encode_batch
from edgerm_core.config import parse_config
from edgerm_core.errors import ConnectionClosed
from edgerm_core.frameworks import FrameworkInfo
from edgerm_core.ids import AgentId, FrameworkId, TaskId, blob_id
from edgerm_core.interfaces import Connection
from edgerm_core.limits import RELAY_OUTBOX_BYTES, SESSION_INBOX_FRAMES
from edgerm_core.master.relay import RelayConnection, Relays
from edgerm_core.master.runner import run_master
from edgerm_core.messages import (
    Acknowledge,
    Answer,
    BlobGet,
    Failed,
    Greet,
    Greeted,
    Heartbeat,
    HeartbeatAck,
    Launch,
    Message,
    Query,
    RefusalCode,
    Refused,
    Register,
    Registered,
    RelayClose,
    Relayed,
    RelayOpen,
    StatusUpdate,
    Submit,
    Submitted,
    Subscribe,
    Subscribed,
    TaskUpdate,
)
from edgerm_core.plugins import load_plugins
from edgerm_core.resources import Resources
from edgerm_core.tasks import Reason, TaskState
from edgerm_core.testing.masters import VERSIONS, spec

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
GW = AgentId("gw")
MessageT = TypeVar("MessageT")
_names = itertools.count()


# --- one channel ----------------------------------------------------------------------------------


class Outlet:
    """The way out of a gateway's connection, which is read when the test says so."""

    max_message_bytes = 1000

    def __init__(self) -> None:
        self.outbox: list[bytes] = []
        self.outbox_bytes = 0
        self.drained = anyio.Event()

    def put(self, data: bytes) -> bool:
        self.outbox.append(data)
        self.outbox_bytes += len(data)
        return True

    async def wait_drained(self) -> None:
        await self.drained.wait()

    def drain(self) -> list[Message]:
        messages: list[Message] = [m for data in self.outbox for m in decode_batch(data)]
        self.outbox.clear()
        self.outbox_bytes = 0
        self.drained.set()
        self.drained = anyio.Event()
        return messages


@pytest.fixture
async def outlet() -> Outlet:
    return Outlet()


@pytest.fixture
async def connection(outlet: Outlet) -> RelayConnection:
    return RelayConnection(outlet, GW, RelayOpen(4, "coap://x", 128))


async def test_a_frame_is_wrapped_and_unwrapped(outlet: Outlet, connection: RelayConnection) -> None:
    await connection.send(b"down")
    assert outlet.drain() == [Relayed(4, b"down")]
    await connection.deliver(b"up")
    assert await connection.receive() == b"up"
    assert (connection.peer, connection.max_message_bytes, connection.push) == ("coap://x", 128, True)


async def test_the_smaller_limit_counts(outlet: Outlet) -> None:
    assert RelayConnection(outlet, GW, RelayOpen(4)).max_message_bytes == 1000 - 32
    assert RelayConnection(outlet, GW, RelayOpen(4, "", 5000)).max_message_bytes == 1000 - 32
    with pytest.raises(ValueError, match="too many"):
        await RelayConnection(outlet, GW, RelayOpen(4, "", 100)).send(bytes(101))


async def test_sending_waits_while_the_gateway_is_behind(
    outlet: Outlet, connection: RelayConnection
) -> None:
    outlet.outbox_bytes = RELAY_OUTBOX_BYTES + 1
    with anyio.move_on_after(0.01) as scope:
        await connection.send(b"x")
    assert scope.cancelled_caught
    assert outlet.outbox == []
    async with anyio.create_task_group() as group:
        group.start_soon(connection.send, b"x")
        await anyio.lowlevel.checkpoint()
        outlet.drain()
    assert outlet.drain() == [Relayed(4, b"x")]


async def test_delivering_waits_while_nobody_reads(connection: RelayConnection) -> None:
    for _ in range(SESSION_INBOX_FRAMES):
        await connection.deliver(b"x")
    with anyio.move_on_after(0.01) as scope:
        await connection.deliver(b"y")
    assert scope.cancelled_caught
    await connection.receive()
    await connection.deliver(b"y")


async def test_what_came_before_the_end_is_still_read(outlet: Outlet, connection: RelayConnection) -> None:
    await connection.deliver(b"x")
    connection.end("its gateway closed the channel")
    assert await connection.receive() == b"x"
    with pytest.raises(ConnectionClosed, match="its gateway closed"):
        await connection.receive()
    with pytest.raises(ConnectionClosed):
        await connection.send(b"x")
    await connection.close("again")
    assert outlet.drain() == [], "the gateway knows"


async def test_closing_from_here_tells_the_gateway_once(
    outlet: Outlet, connection: RelayConnection
) -> None:
    await connection.close("enough")
    await connection.close("enough")
    assert outlet.drain() == [RelayClose(4, "enough")]


async def test_channels_are_opened_heard_and_forgotten(
    outlet: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerm_core.master.relay.MAX_RELAY_CHANNELS", 2)
    served: list[RelayConnection] = []
    relays = Relays(outlet, GW, served.append)
    for channel in (1, 2):
        await relays.take(RelayOpen(channel))
        served[-1].session_id = 10 + channel  # type: ignore[assignment]
    await relays.take(Relayed(2, b"x"))
    assert await served[1].receive() == b"x"
    assert relays.heard((1, 2, 99)) == (11, 12)
    await relays.take(RelayOpen(3))
    await relays.take(RelayOpen(1))
    assert [m.channel for m in outlet.drain() if isinstance(m, RelayClose)] == [3, 1]
    await relays.take(Relayed(99, b"nobody"))
    await relays.take(RelayClose(2, "gone"))
    assert "gone" in served[1].ended
    relays.forget(served[1])
    assert relays.heard((1, 2)) == (11,)
    relays.end("the cable was pulled")
    assert served[0].ended == "the cable was pulled"


# --- with the master around it --------------------------------------------------------------------


class Client:
    """One end of a connection to the master."""

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


class Channel:
    """A device's session inside a gateway's connection."""

    def __init__(self, gateway: Client, number: int) -> None:
        self.gateway = gateway
        self.number = number

    async def send(self, *messages: Message) -> None:
        await self.gateway.send(Relayed(self.number, encode_batch(messages)))

    async def until(self, kind: type[MessageT]) -> MessageT:
        """Return the next message of a kind on this channel; what came before it is skipped."""
        while True:
            relayed = await self.gateway.until(Relayed)
            if relayed.channel == self.number:
                for message in decode_batch(relayed.data):
                    if isinstance(message, kind):
                        return message


def a_register(name: str, executor: str = "test") -> Register:
    info = AgentInfo(
        AgentId(name), name, Resources.parse("cpus:4;mem:1000"), executors=(Fingerprint(executor),)
    )
    return Register(VERSIONS, info, "b1", "i1")


class Bench:
    """A running master."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def connect(self) -> Client:
        return Client(await MemoryTransport().connect(self.url))

    async def gateway(self, name: str = "gw") -> Client:
        client = await self.connect()
        await client.send(a_register(name, "none"))
        await client.until(Registered)
        return client

    async def device(self, gateway: Client, number: int = 1, **opened: Any) -> Channel:
        await gateway.send(RelayOpen(number, **opened))
        channel = Channel(gateway, number)
        await channel.send(a_register(f"d{number}"))
        await channel.until(Registered)
        return channel

    async def agents(self) -> dict[str, dict[str, Any]]:
        client = await self.connect()
        await client.send(Greet(VERSIONS))
        await client.until(Greeted)
        await client.send(Query(1, "agents"))
        rows = (await client.until(Answer)).rows
        await client.connection.close()
        return {row["name"]: row for row in rows}

    async def submit(self, **fields: Any) -> Client:
        client = await self.connect()
        await client.send(Subscribe(VERSIONS, FrameworkInfo(FrameworkId("f"), "f")))
        await client.until(Subscribed)
        await client.send(Submit(1, ("k",), (spec(**fields),)))
        await client.until(Submitted)
        return client

    async def explain(self) -> dict[str, Any]:
        client = await self.connect()
        await client.send(Greet(VERSIONS), Query(1, "explain", {"task": "t1"}))
        return (await client.until(Answer)).rows[0]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running(tmp_path) as bench:
        yield bench


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Bench]:
    url = f"memory://relay-{next(_names)}"
    # The agents of these tests send no heartbeats, however long the disk takes.
    master = f'listen = {json.dumps([url])}\ndata_dir = "{tmp_path}"\nlease_grace_s = 600'
    master += '\nscheduler = "first-fit"'
    config = parse_config(f"[plugins]\nenable = []\n[master]\n{master}\n")
    ready = anyio.Event()
    on_ready: Callable[[list[str]], None] = lambda _: ready.set()  # noqa: E731
    async with anyio.create_task_group() as group:

        async def serve() -> None:
            await run_master(config, load_plugins(config), on_ready=on_ready)

        group.start_soon(serve)
        with anyio.fail_after(PATIENCE_S):
            await ready.wait()
        yield Bench(url)
        group.cancel_scope.cancel()


async def test_a_device_behind_a_gateway_runs_a_task(bench: Bench) -> None:
    gateway = await bench.gateway()
    device = await bench.device(gateway, 1, peer="coap://[fd00::1]:5683")
    rows = await bench.agents()
    assert (rows["d1"]["via"], rows["d1"]["peer"], rows["gw"]["via"]) == ("gw", "coap://[fd00::1]:5683", "")
    framework = await bench.submit()
    launch = await device.until(Launch)
    await device.send(StatusUpdate(launch.task_id, 1, 1, TaskState.FINISHED))
    assert await device.until(Acknowledge) == Acknowledge(launch.task_id, 1, 1)
    while (update := await framework.until(TaskUpdate)).state is not TaskState.FINISHED:
        pass
    assert update.agent_name == "d1"


async def test_channels_end_with_the_gateway_and_alone(bench: Bench) -> None:
    gateway = await bench.gateway()
    await bench.device(gateway, 1)
    await bench.device(gateway, 2)
    await gateway.send(RelayClose(1, "gone"))

    async def connected(*names: str) -> bool:
        rows = await bench.agents()
        return {name for name, row in rows.items() if row["connected"]} == set(names)

    with anyio.fail_after(PATIENCE_S):
        while not await connected("gw", "d2"):  # noqa: ASYNC110
            await anyio.sleep(0.01)
    await gateway.connection.close()
    with anyio.fail_after(PATIENCE_S):
        while not await connected():  # noqa: ASYNC110
            await anyio.sleep(0.01)
    assert (await bench.agents())["d2"]["via"] == "gw", "where it was last"


async def test_what_is_wrong_on_a_channel_ends_that_one_alone(bench: Bench) -> None:
    gateway = await bench.gateway()
    first = await bench.device(gateway, 1)
    second = await bench.device(gateway, 2)
    await gateway.send(Relayed(1, b"\xff"))
    assert (await first.until(Refused)).code == RefusalCode.MALFORMED
    assert (await gateway.until(RelayClose)).channel == 1
    await second.send(Heartbeat())
    assert await second.until(HeartbeatAck) == HeartbeatAck()


async def test_a_gateways_heartbeat_names_who_it_has_heard(bench: Bench) -> None:
    gateway = await bench.gateway()
    await bench.device(gateway, 1)
    await bench.device(gateway, 2)
    await anyio.sleep(0.2)
    await gateway.send(Heartbeat((2, 99)))
    assert await gateway.until(HeartbeatAck) == HeartbeatAck()
    rows = await bench.agents()
    # Compared with each other: how long the question takes is nobody's promise.
    assert rows["d1"]["last_heard_s"] > rows["d2"]["last_heard_s"] + 0.1


async def test_only_an_agent_can_be_a_gateway_and_not_behind_another(bench: Bench) -> None:
    client = await bench.connect()
    await client.send(RelayOpen(1))
    assert (await client.until(Refused)).code == RefusalCode.UNEXPECTED
    operator = await bench.connect()
    await operator.send(Greet(VERSIONS))
    await operator.until(Greeted)
    await operator.send(RelayOpen(1))
    assert (await operator.until(Refused)).code == RefusalCode.UNEXPECTED
    gateway = await bench.gateway()
    device = await bench.device(gateway)
    await device.send(RelayOpen(1))
    assert (await device.until(Refused)).code == RefusalCode.UNEXPECTED


async def test_a_device_gets_blobs_through_the_channel_too(bench: Bench) -> None:
    device = await bench.device(await bench.gateway())
    await device.send(BlobGet(1, blob_id(b"none"), 0, 10))
    assert (await device.until(Failed)).code == RefusalCode.NOT_FOUND


async def test_a_launch_that_no_connection_takes_is_explained(bench: Bench) -> None:
    gateway = await bench.gateway()
    await bench.device(gateway, 1, max_message_bytes=512)
    await bench.submit(env={"A": "x" * 1000})
    row = await bench.explain()
    assert "can never run on any agent" in row["summary"]
    assert "its connection takes 512" in row["summary"]


async def test_an_agent_that_says_it_takes_less_gets_less(bench: Bench) -> None:
    client = await bench.connect()
    register = a_register("small")
    await client.send(Register(VERSIONS, register.info, "b", "i", max_message_bytes=512))
    await client.until(Registered)
    await bench.submit(env={"A": "x" * 1000})
    assert "its connection takes 512" in (await bench.explain())["summary"]


async def test_a_launch_that_turns_out_too_large_goes_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate let it pass; it stayed in STAGING for ever, and only the log knew why."""
    monkeypatch.setattr("edgerm_core.feasibility.launch_bytes", lambda spec: 1)
    gateway = await bench.gateway()
    await bench.device(gateway, 1, max_message_bytes=512)
    framework = await bench.submit(env={"A": "x" * 1000})
    while (update := await framework.until(TaskUpdate)).reason != Reason.LAUNCH_TOO_LARGE:
        pass
    assert update.state is TaskState.PENDING
    assert "more than the 512 that the connection of agent d1 takes" in update.message
    large = await bench.device(gateway, 2)
    assert (await large.until(Launch)).attempt > 1


async def test_custody_of_an_agent_that_is_away_counts(bench: Bench) -> None:
    gateway = await bench.gateway()
    device = await bench.device(gateway, 1)
    framework = await bench.submit()
    launch = await device.until(Launch)
    await gateway.send(RelayClose(1, "gone"), RelayOpen(2, custody_of="d1"))
    custody = Channel(gateway, 2)
    await custody.send(StatusUpdate(launch.task_id, 1, 5, TaskState.FINISHED, result=b"42"))
    assert await custody.until(Acknowledge) == Acknowledge(launch.task_id, 1, 5)
    while (update := await framework.until(TaskUpdate)).state is not TaskState.FINISHED:
        pass
    assert update.result == b"42"
    await custody.send(StatusUpdate(TaskId(99), 1, 1, TaskState.FINISHED), a_register("d1"))
    assert (await custody.until(Refused)).code == RefusalCode.UNEXPECTED


async def test_a_gateway_does_not_have_to_read_for_the_master_to_go_on(bench: Bench) -> None:
    gateway = await bench.gateway()
    devices = [await bench.device(gateway, number) for number in range(1, 4)]
    for device in devices:
        await device.send(*[Heartbeat()] * 100)
    assert set(await bench.agents()) == {"gw", "d1", "d2", "d3"}
