"""A session with the master that outlives its connections.

`Session` dials, greets, and when the connection is lost dials again with jittered backoff. Requests
are sent again on the next connection until they are answered, which is safe because every request of
the protocol may be repeated.
"""

from __future__ import annotations

import copy
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import anyio

from edgerm_core.client.link import CLOSE_TIMEOUT_S, Link, Unanswered, greet
from edgerm_core.config import DEFAULT_URL, Config
from edgerm_core.errors import (
    ConfigError,
    ConnectionClosed,
    DecodeError,
    EdgermError,
    OfferGone,
    ProtocolError,
    RefusedError,
    RequestFailed,
    SpecError,
    TransportError,
)
from edgerm_core.interfaces import Transport
from edgerm_core.limits import GREETING_TIMEOUT_S, RECONNECT_BASE_S, RECONNECT_MAX_S
from edgerm_core.messages import (
    RETRYABLE_REFUSALS,
    AnyMessage,
    Failed,
    Greet,
    Message,
    RefusalCode,
    Subscribe,
)
from edgerm_core.plugins import Plugins, load_plugins
from edgerm_core.security import is_loopback

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
"""How long the first connection may take, retries included, before the caller is told."""

STABLE_S: Final = 10.0
"""A connection that lived this long resets the backoff; shorter ones count as failures."""

REQUEST_ATTEMPTS: Final = 3
"""Dead connections (no answer, no other word) that one request may meet before it fails."""

MAX_BACKOFF_DOUBLINGS: Final = 16
"""Far beyond where RECONNECT_MAX_S takes over; keeps the power small."""

ConnectionCallback = Callable[[bool, str], None]
"""Told of every change of the connection: whether it is up, and a sentence for a person."""

M = TypeVar("M", bound=AnyMessage)


class Peer(Protocol):
    """Whoever uses the session: a Framework or an Operator."""

    def greeting(self) -> Subscribe | Greet:
        """Return the first message of a connection."""
        ...

    def on_message(self, message: AnyMessage) -> None:
        """Take a message that answers no request. Must not raise or wait."""
        ...

    async def on_link(self, link: Link) -> None:
        """Do what every new connection needs. Cancelled when the connection ends."""
        ...

    def on_leaving(self, link: Link) -> None:
        """Post what the master should still learn before the connection is closed."""
        ...

    def on_failure(self, error: EdgermError) -> None:
        """Learn that the session is over for good."""
        ...


def backoff_s(failures: int, random_unit: float) -> float:
    """Return how long to wait after `failures` failures in a row (from 1): full jitter.

    Parameters:
        random_unit: a random number in [0, 1).
    """
    doublings = min(max(failures - 1, 0), MAX_BACKOFF_DOUBLINGS)
    return random_unit * min(RECONNECT_MAX_S, RECONNECT_BASE_S * 2.0**doublings)


def retryable(error: EdgermError) -> bool:
    """Return whether connecting again later, unchanged, can help."""
    if isinstance(error, RefusedError):
        return error.code in RETRYABLE_REFUSALS
    return isinstance(error, TransportError | DecodeError)


def failed_as_error(failed: Failed) -> EdgermError:
    """Return the exception for a request that was not carried out."""
    match failed.code:
        case RefusalCode.SPEC:
            return SpecError(failed.message)
        case RefusalCode.OFFER_INVALID | RefusalCode.AGENT_AWAY:
            return OfferGone(failed.message)
        case _:
            return RequestFailed(failed.code, failed.message)


def resolve_url(url: str | None, insecure: bool) -> str:
    """Return the master's URL: `url`, else `$EDGERM_MASTER`, else the default.

    Raises:
        ConfigError: if it leads off this machine and `insecure` is not set.
    """
    resolved = url or os.environ.get("EDGERM_MASTER") or DEFAULT_URL
    if not insecure and not is_loopback(resolved):
        raise ConfigError(
            "client.insecure",
            f"refusing to connect to {resolved}: peers are not authenticated, so anyone on the way could "
            f"answer as the master; pass insecure=True (command line: --insecure) if the network itself "
            f"is trusted",
        )
    return resolved


class Session:
    """Keeps one connection to the master, and brings requests to it. Made by `open_session`.

    Attributes:
        url: where the master is dialled.
    """

    def __init__(
        self, url: str, transport: Transport, peer: Peer, on_connection: ConnectionCallback | None = None
    ) -> None:
        self.url = url
        self._transport = transport
        self._peer = peer
        self._on_connection = on_connection
        self._random = random.Random()
        self._link: Link | None = None
        self._failure: EdgermError | None = None
        self._problem = ""
        self._changed = anyio.Event()

    async def link(self) -> Link:
        """Return the connection; waits while there is none. Cancel-safe.

        Raises:
            EdgermError: if the session is over for good, as it was told to `Peer.on_failure`.
        """
        while True:
            if self._failure is not None:
                raise copy.copy(self._failure)
            if self._link is not None and not self._link.ended:
                return self._link
            await self._changed.wait()

    async def opened(self, timeout_s: float) -> None:
        """Wait for the first connection.

        Raises:
            TransportError: if there is none within `timeout_s`; names the URL and what to check.
            EdgermError: if the master refuses for good, or no transport speaks the URL.
        """
        with anyio.move_on_after(timeout_s):
            await self.link()
            return
        raise TransportError(
            f"no master answers at {self.url} within {timeout_s:g} s"
            + (f" ({self._problem})" if self._problem else "")
            + "; check the URL (--master, EDGERM_MASTER), that `edgerm master` runs there, and that no "
            "firewall stands between"
        )

    async def request(self, make: Callable[[int], Message], answer_type: type[M]) -> M:
        """Send the request that `make` builds around its id, on as many connections as it takes.

        Waits while there is no connection, without limit: wrap it in `anyio.fail_after` to give up
        earlier. Cancelling leaves open whether the master carried it out.

        Raises:
            SpecError, OfferGone, RequestFailed: if the master answers that it did not carry it out.
            TransportError: if a connected master does not answer within `REQUEST_TIMEOUT_S`.
            EdgermError: if the session is over for good.
        """
        silent = 0
        while True:
            link = await self.link()
            try:
                answer = await link.ask(make)
            except ConnectionClosed:
                continue
            except Unanswered as error:
                silent += 1
                if not error.silent or silent >= REQUEST_ATTEMPTS:
                    raise
                link.lose(error)
                continue
            if isinstance(answer, Failed):
                raise failed_as_error(answer)
            if not isinstance(answer, answer_type):
                raise ProtocolError(
                    f"the master at {self.url} answered with {type(answer).__name__}, "
                    f"expected {answer_type.__name__}"
                )
            return answer

    async def leave(self) -> None:
        """Send what waits, briefly, and end the session."""
        if self._link is not None and not self._link.ended:
            self._peer.on_leaving(self._link)
            await self._link.flush()
        self.fail(ConnectionClosed(f"the connection to {self.url} was closed by this program"))

    async def run(self) -> None:
        """Connect, and connect again, until cancelled or refused for good. Never raises."""
        failures = 0
        while self._failure is None:
            started = anyio.current_time()
            try:
                error = await self._connect_once()
            except EdgermError as caught:
                error = caught
            except Exception as caught:
                log.exception("the transport for %s failed in a way it should not", self.url)
                error = EdgermError(f"{self.url}: {type(caught).__name__}: {caught}")
            if not retryable(error):
                self.fail(error)
                return
            self._problem = str(error)
            failures = 1 if anyio.current_time() - started >= STABLE_S else failures + 1
            delay_s = backoff_s(failures, self._random.random())
            self._report(False, f"no connection to {self.url} ({error}); trying again in {delay_s:.1f} s")
            await anyio.sleep(delay_s)

    async def _connect_once(self) -> EdgermError:
        with anyio.move_on_after(GREETING_TIMEOUT_S) as dialling:
            connection = await self._transport.connect(self.url)
        if dialling.cancelled_caught:
            return TransportError(f"{self.url} did not answer within {GREETING_TIMEOUT_S:g} s")
        link: Link | None = None
        try:
            greeting, early = await greet(connection, self._peer.greeting())
            link = Link(connection, greeting, self._peer.on_message)
            self._link = link
            self._notify()
            self._report(True, f"connected to {self.url}")
            async with anyio.create_task_group() as group:
                group.start_soon(self._peer.on_link, link)
                end = await link.run(early)
                group.cancel_scope.cancel()
            return end
        finally:
            if link is not None:
                await link.close("the client leaves")
            else:
                with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await connection.close("the client leaves")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _report(self, connected: bool, sentence: str) -> None:
        log.info("%s", sentence)
        if self._on_connection is not None:
            self._on_connection(connected, sentence)

    def fail(self, error: EdgermError) -> None:
        """End the session for good; everybody who waits learns `error`. Idempotent."""
        if self._failure is None:
            self._failure = error
            self._peer.on_failure(error)
            self._notify()


@asynccontextmanager
async def open_session(
    peer: Peer,
    url: str | None,
    *,
    insecure: bool,
    connect_timeout_s: float,
    on_connection: ConnectionCallback | None,
    plugins: Plugins | None,
) -> AsyncIterator[Session]:
    """Connect, and keep connected while the block runs. Exceptions of the block come out unwrapped.

    Raises:
        ConfigError, PluginError, TransportError, RefusedError, VersionError: as `Session.opened`.
    """
    resolved = resolve_url(url, insecure)
    needed = ("transport", resolved.partition("://")[0])
    transport = (plugins or load_plugins(Config(), needed)).transport_for(resolved)
    session = Session(resolved, transport, peer, on_connection)
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        try:
            await session.opened(connect_timeout_s)
            yield session
        except Exception as error:
            # Raised again outside the task group, which would wrap it into a group of one.
            failure = error
        finally:
            await session.leave()
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
