"""The memory transport: the contract, and what is its own."""

from __future__ import annotations

import itertools

import anyio
import pytest

from edgerm_core import limits
from edgerm_core.builtin import memory_transport
from edgerm_core.builtin.memory_transport import PIPE_MESSAGES, MemoryTransport
from edgerm_core.config import Config
from edgerm_core.errors import ConfigError, ConnectionClosed, TransportError
from edgerm_core.interfaces import Transport
from edgerm_core.plugins import Plugins
from edgerm_core.testing.contracts.transport import SMALL_MESSAGE_BYTES, TransportContract

pytestmark = pytest.mark.anyio

_names = itertools.count()


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def transport(self) -> Transport:
        return MemoryTransport()

    @pytest.fixture
    def small_transport(self) -> Transport:
        return MemoryTransport(max_message_bytes=SMALL_MESSAGE_BYTES)

    @pytest.fixture
    def listen_url(self) -> str:
        return f"memory://contract-{next(_names)}"

    @pytest.fixture
    def bad_urls(self) -> list[str]:
        return ["memory://", "memory://name/path", "memory://name?query", "ws://name", "name"]


async def test_exactly_the_named_number_of_messages_is_on_its_way() -> None:
    listener = await MemoryTransport().listen("memory://bounded")
    connection = await MemoryTransport().connect("memory://bounded")
    for _ in range(PIPE_MESSAGES):
        await connection.send(b"x")
    with anyio.move_on_after(0.05) as scope:
        await connection.send(b"one too many")
    assert scope.cancelled_caught
    await listener.close()


async def test_a_second_listener_of_one_name_is_refused_until_the_first_is_closed() -> None:
    first = await MemoryTransport().listen("memory://twice")
    with pytest.raises(TransportError, match="memory://twice is already in use"):
        await MemoryTransport().listen("memory://twice")
    await first.close()
    second = await MemoryTransport().listen("memory://twice")
    await second.close()


async def test_a_late_second_close_does_not_close_the_next_listener_of_that_name() -> None:
    first = await MemoryTransport().listen("memory://again")
    await first.close()
    second = await MemoryTransport().listen("memory://again")
    await first.close()
    connection = await MemoryTransport().connect("memory://again")
    await connection.close()
    await second.close()


async def test_closing_a_listener_ends_those_who_still_wait_to_be_served() -> None:
    listener = await MemoryTransport().listen("memory://waiting")
    connection = await MemoryTransport().connect("memory://waiting")
    await listener.close()
    with pytest.raises(ConnectionClosed, match="the listener closed"):
        await connection.receive()


async def test_too_many_connections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)
    listener = await MemoryTransport().listen("memory://full")
    for _ in range(2):
        await MemoryTransport().connect("memory://full")
    with pytest.raises(TransportError, match="2 connections"):
        await MemoryTransport().connect("memory://full")
    await listener.close()


async def test_a_connection_that_ended_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 1)
    listener = await MemoryTransport().listen("memory://room")

    async def until_the_end(connection: object) -> None:
        assert isinstance(connection, memory_transport.MemoryConnection)
        with pytest.raises(ConnectionClosed):
            await connection.receive()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, until_the_end)
            for _ in range(3):
                connection = await MemoryTransport().connect("memory://room")
                await connection.close()
                await anyio.wait_all_tasks_blocked()
            await listener.close()


async def test_the_plugin_provides_it_for_memory_urls() -> None:
    plugins = Plugins(Config())
    plugins.add(memory_transport, "memory", "edgerm-core", "0")
    assert isinstance(plugins.transport_for("memory://x"), MemoryTransport)
    with pytest.raises(ConfigError, match="not a memory URL"):
        await plugins.transport_for("memory://x").connect("memory://x/y")
