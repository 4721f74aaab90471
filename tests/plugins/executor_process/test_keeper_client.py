"""Many coroutines on one connection; keepers that will not start."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from edgerm_executor_process.keeper_client import LOG_NAME, KeeperClient, KeeperGone

from edgerm_core.errors import ExecutorError
from edgerm_core.testing.contracts.executor import PATIENCE_S

pytestmark = pytest.mark.anyio


def ignore(key: str, record: dict[str, Any]) -> None:
    raise AssertionError("nothing runs here")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[KeeperClient]:
    client = KeeperClient(tmp_path / "keeper", ignore)
    yield client
    await client.close()


async def test_requests_of_many_coroutines_are_all_answered_although_some_are_cancelled(
    client: KeeperClient,
) -> None:
    """Whoever reads the connection may be cancelled or served at any moment: someone must go on."""
    connection = await client.connection()
    chance = random.Random(5)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        for _ in range(10):
            with anyio.move_on_after(chance.choice((0.0, 0.0005, 0.002, 30.0))) as scope:
                await connection.request("hello")
            if not scope.cancelled_caught:
                answered += 1

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(ask)
    assert answered >= 100
    assert not connection.closed


async def test_waiting_coroutines_hear_of_a_broken_connection(client: KeeperClient) -> None:
    connection = await client.connection()
    told = 0

    async def wait() -> None:
        nonlocal told
        with pytest.raises(KeeperGone):
            await connection.wait_for("never", lambda: False)
        told += 1

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(wait)
            await anyio.sleep(0.05)
            await connection.close()
    assert told == 5


async def test_two_clients_share_one_keeper(client: KeeperClient, tmp_path: Path) -> None:
    other = KeeperClient(tmp_path / "keeper", ignore)
    pids: set[int] = set()

    async def ask(client: KeeperClient) -> None:
        pids.add((await (await client.connection()).request("hello"))["pid"])

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(ask, client)
            group.start_soon(ask, other)
    await other.close()
    assert len(pids) == 1


async def test_nonsense_drops_only_who_sent_it(client: KeeperClient, tmp_path: Path) -> None:
    keeper = await client.connection()
    for nonsense in (b"nonsense\n", b'{"id": 1}\n', b"[]\n", b'{"id": 1, "op": "fly"}\n', b"\xff\n"):
        stream = await client._dial()
        assert stream is not None
        await stream.send(nonsense)
        with anyio.fail_after(PATIENCE_S), pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
    assert (await keeper.request("hello"))["protocol"] == 1
    for operation in ("start", "attach", "destroy", "stop", "stats"):
        assert "cannot do" in (await keeper.request(operation))["error"]
    assert (await keeper.request("hello"))["protocol"] == 1


async def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client = KeeperClient(tmp_path / "file" / "keeper", ignore)
    with pytest.raises(ExecutorError, match=str(tmp_path / "file")):
        await client.connection()


async def test_keeper_that_fails_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "keeper.lock").mkdir()
    with pytest.raises(ExecutorError, match="Is a directory") as caught:
        await KeeperClient(tmp_path, ignore).connection()
    assert caught.value.recoverable
    assert (tmp_path / LOG_NAME).exists()


async def test_closed_client_opens_nothing(client: KeeperClient) -> None:
    await client.close()
    with pytest.raises(ExecutorError, match="closed"):
        await client.connection()
