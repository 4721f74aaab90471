"""Unix sockets: reading that is cancelled just when something comes, and closing under a reader."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from edgerm_core import unix

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[SocketStream, socket.socket]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
        listener.listen(1)
        stream = await anyio.connect_unix(directory / "socket")
        peer, _ = listener.accept()
        with peer:
            yield stream, peer
            await unix.close(stream)
            await unix.close(stream)


async def test_what_comes_in_the_moment_of_a_cancellation_is_there_for_the_next_one(tmp_path: Path) -> None:
    """The runner of the test fails it if the event loop is told an exception."""
    async with connected(tmp_path) as (stream, peer), anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def read() -> None:
            with scope:
                await unix.receive(stream, 100)

        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        peer.send(b"word")
        # In the event loop's next turn this comes first, and that the socket can be read comes second.
        asyncio.get_running_loop().call_soon(scope.cancel)
        await anyio.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert await unix.receive(stream, 100) == b"word"


async def test_the_end_and_the_closing_reach_the_reader(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stream, peer):

        async def read() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await unix.receive(stream, 100)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await unix.close(stream)
        with pytest.raises(anyio.ClosedResourceError):
            await unix.receive(stream, 100)
        assert peer.recv(100) == b""


async def test_the_peers_end_is_the_end_of_the_stream(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stream, peer):
        peer.close()
        with pytest.raises(anyio.EndOfStream):
            await unix.receive(stream, 100)
