"""Endless answers over a real socket: lines, refusals, and engines that break off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from edgerm_executor_docker.streams import (
    EngineGone,
    EngineRefused,
    EngineStream,
    absence,
    error_message,
    open_stream,
)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(path: Path, answer: Callable[[SocketStream], Awaitable[Any]]) -> AsyncIterator[str]:
    """A server that reads a request's head, then does `answer`, then hangs up."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            await answer(stream)

    listener = await anyio.create_unix_listener(path)
    async with anyio.create_task_group() as group, listener:
        group.start_soon(listener.serve, serve)
        yield str(path)
        group.cancel_scope.cancel()


async def get(path: str) -> EngineStream:
    with anyio.fail_after(30):
        return await open_stream(path, "GET", "/x", {"a": "b c"}, {}, False)


async def test_lines_come_one_by_one_however_they_are_cut(tmp_path: Path) -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(b'HTTP/1.1 200 OK\r\n\r\n{"n":')
        await stream.send(b'1}\n\n{"n":2}\n{"n"')
        await stream.send(b":3}")

    async with answering(tmp_path / "s", answer) as path:
        stream = await get(path)
        assert [line["n"] async for line in stream.lines()] == [1, 2, 3]
        await stream.close()
        await stream.close()


async def test_refusal_has_the_engines_sentence(tmp_path: Path) -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(b'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{"message":"no!"}')

    async with answering(tmp_path / "s", answer) as path:
        with pytest.raises(EngineRefused, match="no!") as caught:
            await get(path)
        assert caught.value.status == 404


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
    ],
)
async def test_engine_that_breaks_off_at_once(tmp_path: Path, text: bytes) -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(text)

    async with answering(tmp_path / "s", answer) as path:
        with pytest.raises(EngineGone):
            await get(path)


async def test_engine_that_breaks_off_in_the_middle(tmp_path: Path) -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async with answering(tmp_path / "s", answer) as path:
        stream = await get(path)
        assert await stream.receive() == b"hello"
        with pytest.raises(EngineGone, match="in the middle"):
            await stream.receive()
        await stream.close()


async def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    async def answer(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n[1]\n")

    async with answering(tmp_path / "s", answer) as path:
        stream = await get(path)
        with pytest.raises(EngineGone, match="expected"):
            await anext(stream.lines())
        await stream.close()


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="no container engine listens"):
        await get(str(tmp_path / "nobody"))


def test_sentences_say_what_to_do() -> None:
    assert "group docker" in absence("/s", PermissionError())
    assert "systemctl status" in absence("/s", ConnectionRefusedError())
    assert "cannot be reached" in absence("/s", OSError("odd"))


def test_error_answers() -> None:
    assert error_message(b'{"message":"a"}') == "a"
    assert error_message(b"plain\n") == "plain"
    assert error_message(b"[]") == "[]"
    assert error_message(b"") == "no reason given"
