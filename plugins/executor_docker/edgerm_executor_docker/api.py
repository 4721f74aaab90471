"""The engine's API: calls in worker threads, answers that do not end as sockets of the event loop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread

from edgerm_executor_docker.instance import ask_instance
from edgerm_executor_docker.streams import EngineGone, EngineRefused, EngineStream, absence, open_stream

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

MAX_STARTS: Final = 4
"""Containers created or started at the same time: more only wait inside the engine."""

MAX_CALLS: Final = 8
"""Other calls at the same time, so that a start that hangs keeps no stop waiting."""

PROBE_TIMEOUT_S: Final = 5.0


class Engine:
    """One engine at a Unix socket. Holds no connection until it is called.

    Parameters:
        find_socket: returns the path of its socket; asked each time, since engines are installed later.
        timeout_s: how long it may take to answer one call.
    """

    def __init__(self, find_socket: Callable[[], str], timeout_s: float) -> None:
        self._find_socket = find_socket
        self._timeout_s = timeout_s
        self._limiters: dict[bool, anyio.CapacityLimiter] = {}
        self._lock = threading.Lock()
        self._idle: list[APIClient] = []
        self._api_version: str | None = None
        self._generation = 0

    @property
    def socket_path(self) -> str:
        """Where it is."""
        return self._find_socket()

    async def call(self, what: Callable[[APIClient], T], *, start: bool = False) -> T:
        """Return `what(client)`, done in a worker thread with a client of its own.

        If cancelled, it waits until the engine has answered: what the engine has been told it does, and
        the caller must know about it.

        Parameters:
            start: whether it creates or starts a container.

        Raises:
            EngineGone: if the engine does not answer.
            EngineRefused: if it refuses, with its own sentence.
        """
        return await anyio.to_thread.run_sync(self._call, what, limiter=self._limiter(start))

    async def in_thread(self, what: Callable[[], T]) -> T:
        """Return `what()`, done in a worker thread: for what waits for the disk.

        If cancelled, it waits until it is done.
        """
        return await anyio.to_thread.run_sync(what, limiter=self._limiter(start=False))

    def _limiter(self, start: bool) -> anyio.CapacityLimiter:
        if start not in self._limiters:
            self._limiters[start] = anyio.CapacityLimiter(MAX_STARTS if start else MAX_CALLS)
        return self._limiters[start]

    async def stream(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        hijack: bool = False,
        patience_s: float | None = None,
    ) -> EngineStream:
        """Open an answer that may never end. Close it after use. Cancel-safe.

        Parameters:
            hijack: whether the connection is to become the stream itself (`attach`).
            patience_s: how long its beginning may take; None: as any call.

        Raises:
            EngineGone: if the engine does not answer.
            EngineRefused: if it refuses, with its own sentence.
        """
        patience_s = self._timeout_s if patience_s is None else patience_s
        with anyio.move_on_after(patience_s):
            return await open_stream(self.socket_path, method, path, query, headers or {}, hijack)
        raise EngineGone(f"the engine at {self.socket_path} did not answer within {patience_s:g} s")

    async def probe(self) -> None:
        """Check that somebody listens, without loading the engine's library.

        Raises:
            EngineGone: if nobody does; the sentence says what to do.
        """
        await self.in_thread(lambda: _probe(self.socket_path))

    async def ping_anew(self, patience_s: float) -> None:
        """Check that the engine answers on a new connection. Cancel-safe.

        Raises:
            EngineGone: if it does not within `patience_s`.
        """
        with anyio.move_on_after(patience_s):
            try:
                stream = await self.stream("GET", "/_ping", {})
            except EngineRefused as error:
                raise EngineGone(f"the engine is there but does not work: {error}") from error
            await stream.close()
            return
        raise EngineGone(f"the engine at {self.socket_path} did not answer within {patience_s:g} s")

    async def instance(self) -> str:
        """Return which run of the engine answers, see `instance.py`; empty where that cannot be known.

        Raises:
            EngineGone: if the engine does not answer.
        """

        def ask(client: APIClient) -> str:
            with contextlib.closing(_connect(self.socket_path)) as connection:
                return ask_instance(client, connection)

        return await self.call(ask)

    def close(self) -> None:
        """Close idle connections. Idempotent."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
            self._api_version = None
        for client in idle:
            client.close()

    # --- in worker threads --------------------------------------------------------------------

    def _call(self, what: Callable[[APIClient], T]) -> T:
        # Imported here: it takes long, and an agent without an engine needs none of it.
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        with self._lock:
            generation = self._generation
        client = self._take()
        try:
            result = what(client)
        except docker.errors.APIError as error:
            self._put_back(client, generation)
            raise EngineRefused(error.status_code or 0, str(error.explanation or error)) from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
        ) as error:
            client.close()
            self.close()
            _probe(self.socket_path)
            if isinstance(error, requests.exceptions.Timeout):
                problem = f"did not answer within {self._timeout_s:g} s"
            else:
                problem = f"broke off: {error}"
            raise EngineGone(f"the engine at {self.socket_path} {problem}") from error
        except BaseException:
            client.close()
            raise
        self._put_back(client, generation)
        return result

    def _take(self) -> APIClient:
        import docker

        path = self.socket_path
        # Here and not in the library, which leaves a socket open for each connection that it is refused.
        _probe(path)
        with self._lock:
            if self._idle:
                return self._idle.pop()
            version = self._api_version
        if version is None:
            version = self._ask_version(path)
        client = docker.APIClient(base_url=f"unix://{path}", version=version, timeout=int(self._timeout_s))
        # Proxies and ~/.netrc have no say on a Unix socket, and looking for them costs more than a call.
        client.trust_env = False
        return client

    def _ask_version(self, path: str) -> str:
        """Return the newest version of the API that the engine speaks."""
        import docker
        import docker.constants

        client = docker.APIClient(
            base_url=f"unix://{path}",
            version=docker.constants.DEFAULT_DOCKER_API_VERSION,
            timeout=int(self._timeout_s),
        )
        try:
            self._api_version = str(client.version(api_version=False)["ApiVersion"])
            return self._api_version
        except Exception as error:
            raise EngineGone(f"the engine at {path} does not say its version: {error}") from error
        finally:
            client.close()

    def _put_back(self, client: APIClient, generation: int) -> None:
        with self._lock:
            if generation == self._generation and len(self._idle) < MAX_STARTS + MAX_CALLS:
                self._idle.append(client)
                return
        client.close()


def _probe(path: str) -> None:
    """Connect and hang up. Blocking.

    Raises:
        EngineGone: if nobody listens, with what to do.
    """
    _connect(path).close()


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PROBE_TIMEOUT_S)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise EngineGone(absence(path, error)) from None
    return connection
