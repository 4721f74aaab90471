"""Answers of the engine that may never end, each a socket that the event loop watches.

The engine's library needs a thread for each of them; an agent has one for every running container.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import anyio
from anyio.abc import SocketStream

from edgerm_core import unix
from edgerm_executor_docker.http_reply import NotHttp, ReplyDecoder

READ_BYTES: Final = 64 << 10
MAX_ERROR_BYTES: Final = 64 << 10
MAX_LINE_BYTES: Final = 1 << 20
"""Of one line of JSON: engines' longest are some ten KiB."""


class EngineGone(Exception):
    """The engine does not answer; what it runs may go on. The sentence says what to do."""


class EngineRefused(Exception):
    """The engine says no.

    Attributes:
        status: HTTP's, such as 404.
        message: the engine's own sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineStream:
    """One answer, being received."""

    def __init__(self, socket: SocketStream, decoder: ReplyDecoder, first: bytes) -> None:
        self._socket = socket
        self._decoder = decoder
        self._first = first

    async def receive(self) -> bytes:
        """Return the next piece; empty at its end. Cancel-safe: a cancelled call loses nothing.

        Raises:
            EngineGone: if the engine breaks off in the middle.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        while not self._decoder.ended:
            try:
                data = await unix.receive(self._socket, READ_BYTES)
                piece = self._decoder.feed(data)
            except anyio.EndOfStream:
                if self._decoder.endless:
                    return b""
                raise EngineGone("the engine broke off in the middle of an answer") from None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, NotHttp) as error:
                raise EngineGone(f"the connection to the engine broke: {error}") from error
            if piece:
                return piece
        return b""

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of an answer that is lines of JSON.

        Raises:
            EngineGone: if the engine breaks off, or sends something else.
        """
        rest = b""
        while piece := await self.receive():
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise EngineGone("the engine sent a line that does not end")
            for line in lines:
                if line.strip():
                    yield _object(line)
        if rest.strip():
            yield _object(rest)

    async def close(self) -> None:
        """Hang up. Idempotent."""
        with anyio.CancelScope(shield=True):
            await unix.close(self._socket)


async def open_stream(
    path: str,
    method: str,
    target: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    hijack: bool,
) -> EngineStream:
    """Connect, ask, and read the head of the answer.

    Parameters:
        path: of the engine's socket.
        target: of the API without a version: the engine's newest.

    Raises:
        EngineGone: if the engine cannot be reached or breaks off.
        EngineRefused: if it refuses.
    """
    head = [f"{method} {target}?{urlencode(query)} HTTP/1.1", "Host: engine", "User-Agent: edgerm"]
    if hijack:
        head += ["Connection: Upgrade", "Upgrade: tcp"]
    if method == "POST":
        head.append("Content-Length: 0")
    head += [f"{name}: {value}" for name, value in headers.items()]
    try:
        socket = await anyio.connect_unix(path)
    except OSError as error:
        raise EngineGone(absence(path, error)) from None
    decoder = ReplyDecoder()
    try:
        await socket.send("\r\n".join((*head, "", "")).encode("latin-1"))
        body = b""
        while not decoder.status:
            body = decoder.feed(await unix.receive(socket, READ_BYTES))
        if decoder.status >= 400:
            stream = EngineStream(socket, decoder, body)
            text = b""
            while len(text) < MAX_ERROR_BYTES and (piece := await stream.receive()):
                text += piece
            raise EngineRefused(decoder.status, error_message(text))
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError, NotHttp) as error:
        await unix.close(socket)
        raise EngineGone(f"the engine at {path} broke off: {error}") from None
    except BaseException:
        with anyio.CancelScope(shield=True):
            await unix.close(socket)
        raise
    return EngineStream(socket, decoder, body)


def absence(path: str, error: OSError) -> str:
    """Return the sentence for an engine that cannot be connected to."""
    if isinstance(error, FileNotFoundError):
        return (
            f"no container engine listens at {path}: install or start one (systemctl start docker), or set "
            f"socket in [executor.docker]"
        )
    if isinstance(error, PermissionError):
        return (
            f"this user may not use the engine at {path}: add it to the group docker, or run the agent as "
            f"root"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nobody answers at {path}: the engine has stopped; see systemctl status docker"
    return f"the engine at {path} cannot be reached: {error}"


def error_message(text: bytes) -> str:
    """Return the sentence of an engine's error answer."""
    try:
        decoded = json.loads(text)
    except ValueError:
        decoded = None
    if isinstance(decoded, dict) and isinstance(decoded.get("message"), str):
        message: str = decoded["message"]
        return message
    return text.decode("utf-8", "replace").strip() or "no reason given"


def _object(line: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(line)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise EngineGone(f"the engine sent {line[:60]!r} where an object was expected")
    return decoded
