"""The agent's side of the keeper's socket: starts the keeper, asks it, hears from it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import SocketStream

import edgerm_core
import edgerm_executor_process
from edgerm_core import unix
from edgerm_core.errors import ExecutorError

log = logging.getLogger(__name__)

SOCKET_NAME: Final = "keeper.sock"
LOG_NAME: Final = "keeper.log"
ALREADY_RUNNING_EXIT: Final = 3
"""The three as in `keeper.py`, which is not imported here since it is a program."""

PROTOCOL: Final = 1

LAUNCH_TIMEOUT_S: Final = 30.0
"""A Python start on a gateway with a slow SD card takes several seconds."""

CONNECT_TRIES: Final = 40
CONNECT_RETRY_S: Final = 0.05
"""While a keeper is just ending its lock is taken, but nobody answers."""

SEND_TIMEOUT_S: Final = 10.0


class KeeperGone(Exception):
    """The connection to the keeper broke; what it keeps may go on."""


class KeeperConnection:
    """One connection. Broken stays broken.

    No task of its own reads it: of all coroutines that wait for something, one reads and wakes the one
    that a message is for; when it has its own, the next takes over.
    """

    def __init__(self, stream: SocketStream, on_exit: Callable[[str, dict[str, Any]], None]) -> None:
        self.closed = False
        self.attached: set[str] = set()
        self._stream = stream
        self._on_exit = on_exit
        self._received = bytearray()
        self._next_id = 1
        self._answers: dict[int, dict[str, Any] | None] = {}
        self._waiters: dict[object, list[anyio.Event]] = {}
        self._reading = False
        self._sending = anyio.Lock()

    async def request(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Ask and return the answer. If cancelled, the keeper does it all the same.

        Raises:
            KeeperGone: if the connection breaks first.
        """
        number = self._next_id
        self._next_id += 1
        self._answers[number] = None
        try:
            line = json.dumps({"id": number, "op": operation, **fields}).encode("ascii") + b"\n"
            await self._send(line)
            await self.wait_for(number, lambda: self._answers[number] is not None)
            answer = self._answers[number]
            assert answer is not None
            return answer
        finally:
            del self._answers[number]

    async def wait_for(self, token: object, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`, which may become true with a message for `token`: an id or a run's key.

        Raises:
            KeeperGone: if the connection breaks first.
        """
        try:
            while not ready():
                if self.closed:
                    raise KeeperGone
                if self._reading:
                    await self._wait_turn(token)
                    continue
                self._reading = True
                try:
                    while not ready() and not self.closed:
                        await self._read_some()
                finally:
                    self._reading = False
        finally:
            # Also who never read may have been chosen to, just before its own message came.
            if not self._reading:
                self._hand_over()

    async def close(self) -> None:
        """Close it. Idempotent."""
        self._break()
        await unix.close(self._stream)

    async def _send(self, line: bytes) -> None:
        async with self._sending:
            if self.closed:
                raise KeeperGone
            # Half a line would spoil the connection, so this is not cancelled but bounded.
            with anyio.move_on_after(SEND_TIMEOUT_S, shield=True) as scope:
                try:
                    await self._stream.send(line)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self._break()
                    raise KeeperGone from None
            if scope.cancelled_caught:
                self._break()
                raise KeeperGone

    async def _wait_turn(self, token: object) -> None:
        event = anyio.Event()
        self._waiters.setdefault(token, []).append(event)
        try:
            await event.wait()
        finally:
            events = self._waiters[token]
            events.remove(event)
            if not events:
                del self._waiters[token]

    def _hand_over(self) -> None:
        """Wake one waiter, so that it reads from now on; all of them if there is nothing to read."""
        for events in list(self._waiters.values()):
            for event in events:
                event.set()
                if not self.closed:
                    return

    def _wake(self, token: object) -> None:
        for event in self._waiters.get(token, ()):
            event.set()

    def _break(self) -> None:
        self.closed = True
        self._hand_over()

    async def _read_some(self) -> None:
        try:
            self._received += await unix.receive(self._stream, 1 << 16)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._break()
            return
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "exit" in message:
                self._on_exit(message["exit"], message["record"])
                self._wake(message["exit"])
            elif message["id"] in self._answers:
                self._answers[message["id"]] = message
                self._wake(message["id"])


class KeeperClient:
    """Finds the keeper of a directory, or starts it.

    Parameters:
        base_dir: the executor's directory; one keeper owns it.
        on_exit: called with key and record of each run that ends while connected.
    """

    def __init__(self, base_dir: Path, on_exit: Callable[[str, dict[str, Any]], None]) -> None:
        self._base_dir = base_dir
        self._on_exit = on_exit
        self._connection: KeeperConnection | None = None
        self._connecting = anyio.Lock()
        self._closed = False

    async def connection(self) -> KeeperConnection:
        """Return a connection that works, starting the keeper if need be.

        Raises:
            ExecutorError: if no keeper can be started, with what it said.
        """
        async with self._connecting:
            if self._closed:
                raise ExecutorError("the process executor is closed", recoverable=True)
            if self._connection is not None and self._connection.closed:
                await self._connection.close()
                self._connection = None
            if self._connection is None:
                self._connection = await self._connect()
            return self._connection

    async def existing(self) -> KeeperConnection | None:
        """Return a connection to the keeper that an earlier agent process left; None if there is none.

        Raises:
            ExecutorError: if it is of another version.
        """
        async with self._connecting:
            if self._connection is None and not self._closed and (stream := await self._dial()) is not None:
                self._connection = await self._greet(stream)
            return self._connection

    async def close(self) -> None:
        """Close the connection; the keeper and its runs go on. Idempotent."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> KeeperConnection:
        for _ in range(CONNECT_TRIES):
            stream = await self._dial()
            if stream is not None:
                connection = await self._greet(stream)
                if connection is not None:
                    return connection
            elif await self._launch() == ALREADY_RUNNING_EXIT:
                await anyio.sleep(CONNECT_RETRY_S)
        raise ExecutorError(
            f"the keeper in {self._base_dir} owns its directory but does not answer: see {LOG_NAME} there",
            recoverable=True,
        )

    async def _greet(self, stream: SocketStream) -> KeeperConnection | None:
        """Return a connection once the keeper has answered; None if it is gone."""
        connection = KeeperConnection(stream, self._on_exit)
        try:
            hello = await connection.request("hello")
        except KeeperGone:
            await connection.close()
            return None
        if hello.get("protocol") != PROTOCOL:
            await connection.close()
            raise ExecutorError(
                f"the keeper in {self._base_dir} is of another version of edgerm-executor-process "
                f"(protocol {hello.get('protocol')}, this is {PROTOCOL}): let its tasks end first"
            )
        return connection

    async def _dial(self) -> SocketStream | None:
        """Return a stream; None if nobody listens."""
        try:
            directory = os.open(self._base_dir, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None  # `_launch` makes it, or says why that cannot be.
        try:
            # A socket's path has 108 bytes; this one is short whatever the directory's is.
            return await anyio.connect_unix(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        except OSError:
            return None
        finally:
            os.close(directory)

    async def _launch(self) -> int:
        """Start a keeper; return its exit code once it listens or another one does.

        Raises:
            ExecutorError: if it fails.
        """
        try:
            self._base_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            log_file = os.open(self._base_dir / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise ExecutorError(
                f"the process executor cannot use its directory {self._base_dir}: {error.strerror}",
                recoverable=True,
            ) from error
        try:
            with anyio.fail_after(LAUNCH_TIMEOUT_S):
                done = await anyio.run_process(
                    [sys.executable, "-S", "-m", "edgerm_executor_process.keeper", str(self._base_dir)],
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    check=False,
                    cwd="/",
                    env=_keeper_env(),
                    start_new_session=True,
                )
        except (OSError, TimeoutError) as error:
            raise ExecutorError(f"the keeper cannot be started: {error}", recoverable=True) from error
        finally:
            os.close(log_file)
        if done.returncode not in (0, ALREADY_RUNNING_EXIT):
            said = ""
            with suppress(OSError):
                said = (self._base_dir / LOG_NAME).read_text(errors="replace").strip()[-500:]
            raise ExecutorError(
                f"the keeper in {self._base_dir} failed with exit code {done.returncode}: {said}",
                recoverable=True,
            )
        return done.returncode


def _keeper_env() -> dict[str, str]:
    """Return the little that the keeper needs.

    It skips Python's `site` to stay small, so it is told where the two packages are.
    """
    packages = (edgerm_executor_process, edgerm_core)
    places = [
        str(Path(package.__file__).resolve().parent.parent) for package in packages if package.__file__
    ]
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)),
        "PYTHONUTF8": "1",
        "MALLOC_ARENA_MAX": "1",
    }
