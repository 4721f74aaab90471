"""Fetches images: each once however many tasks want it, a few at a time, again after a broken transfer.

A registry that says nothing and one that breaks off are two things: the first is given up after a time,
since the task may run elsewhere; with the second each try goes on from where the last one ended.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import anyio

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Reason
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.config import DockerConfig, Registry
from edgerm_executor_docker.image_name import ImageName
from edgerm_executor_docker.pull_progress import Progress, is_transient, with_hint
from edgerm_executor_docker.streams import EngineGone, EngineRefused

log = logging.getLogger(__name__)

TRIES: Final = 5
FIRST_RETRY_S: Final = 1.0
"""Between tries; doubles. Engines keep the layers they have, so each try goes on from there."""

ANSWER_S: Final = 60.0
"""For the registry's first answer in one try: another connection may get through where one hangs."""

PING_S: Final = 5.0
"""Tells an engine that hangs from a registry that does not answer it."""

TELL_EVERY_S: Final = 240.0
"""How often whoever waits is told how far it is though nothing changes: core takes silence for a hang."""

STALL_S: Final = 300.0
"""An engine that says nothing for so long fetches nothing: slow disks take minutes for a large layer."""

LINGER_S: Final = 600.0
"""A transfer that no task waits for any more goes on for so long, unless others wait for their turn: the
next try of the task takes it up."""

AUTH_HEADER: Final = "X-Registry-Auth"

Report = Callable[[str], None]


class PullFailed(Exception):
    """One try failed. `transient`: another may succeed."""

    def __init__(self, message: str, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class _Pull:
    """One image being fetched.

    Attributes:
        latest: how far it is; empty: nothing has been told yet.
        answered: whether the registry has ever answered.
    """

    def __init__(self) -> None:
        self.latest = ""
        self.answered = False
        self.reports: list[Report] = []
        self.done = anyio.Event()
        self.error: ExecutorError | None = None
        self.scope = anyio.CancelScope()

    def report(self, text: str) -> None:
        self.latest = text
        for report in self.reports:
            report(text)


class Pulls:
    """All images being fetched.

    Parameters:
        first_retry_s: before the second try.
    """

    def __init__(
        self,
        config: DockerConfig,
        engine: Engine,
        background: Background,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self._config = config
        self._engine = engine
        self._background = background
        self._first_retry_s = first_retry_s
        self._under_way: dict[str, _Pull] = {}
        self._turn: anyio.Semaphore | None = None

    async def pull(self, image: ImageName, report: Report) -> None:
        """Fetch an image, or wait for whoever is fetching it. If cancelled, the transfer goes on a while.

        Parameters:
            report: told how far it has come, in one sentence.

        Raises:
            ExecutorError: if it cannot be had; with the engine's or the registry's own sentence.
        """
        pull = self._under_way.get(image.text)
        if pull is None or pull.scope.cancel_called:
            pull = self._under_way[image.text] = _Pull()
            self._background.spawn(self._run(image, pull))
        pull.reports.append(report)
        pull.scope.deadline = float("inf")
        try:
            while not pull.done.is_set():
                if pull.latest:
                    report(pull.latest)
                with anyio.move_on_after(TELL_EVERY_S):
                    await pull.done.wait()
        finally:
            pull.reports.remove(report)
            if not pull.reports:
                pull.scope.deadline = anyio.current_time() + LINGER_S
        if pull.error is not None:
            raise pull.error

    async def _run(self, image: ImageName, pull: _Pull) -> None:
        if self._turn is None:
            self._turn = anyio.Semaphore(self._config.max_pulls)
        pull.error = ExecutorError(f"pulling {image.text} was broken off", recoverable=True)
        try:
            with pull.scope:
                if self._turn.value == 0:
                    self._end_unwanted()
                    pull.report(f"waiting to pull {image.text}: {self._config.max_pulls} others are on")
                async with self._turn:
                    pull.error = await self._try(image, pull)
        finally:
            if self._under_way.get(image.text) is pull:
                del self._under_way[image.text]
            pull.done.set()

    def _end_unwanted(self) -> None:
        for other in self._under_way.values():
            if not other.reports:
                other.scope.cancel()

    async def _try(self, image: ImageName, pull: _Pull) -> ExecutorError | None:
        """Try until it is here, cannot be had, or has failed too often."""
        retry_s = self._first_retry_s
        silent_until = anyio.current_time() + self._config.registry_patience_s
        for number in range(1, TRIES + 1):
            pull.report(f"pulling {image.text}")
            try:
                await self._once(image, pull, silent_until)
                return None
            except PullFailed as error:
                if not error.transient:
                    return ExecutorError(
                        f"image {image.text} cannot be pulled: {error}", reason=Reason.LAUNCH_FAILED
                    )
                problem = with_hint(str(error))
            except EngineGone as error:
                return ExecutorError(str(error), reason=Reason.EXECUTOR_UNAVAILABLE, recoverable=True)
            if number == TRIES or (not pull.answered and anyio.current_time() + retry_s >= silent_until):
                break
            log.warning("pulling %s failed, next try in %g s: %s", image.text, retry_s, problem)
            pull.report(f"pulling {image.text} failed, next try in {retry_s:g} s: {problem}")
            await anyio.sleep(retry_s)
            retry_s *= 2
        # No fault of the task: another agent may reach the registry.
        return ExecutorError(
            f"image {image.text} could not be pulled in {number} tries: {problem}",
            reason=Reason.BLOB_UNAVAILABLE,
            recoverable=True,
        )

    async def _once(self, image: ImageName, pull: _Pull, silent_until: float) -> None:
        """Try once.

        Parameters:
            silent_until: when a registry that has never answered is given up.
        """

        def patience_s() -> float:
            if pull.answered:
                return STALL_S
            return max(0.0, min(answer_by, silent_until) - anyio.current_time())

        answer_by = anyio.current_time() + ANSWER_S
        progress = Progress(image.text)
        header, secret = await self._engine.in_thread(lambda: self._credentials(image.host))
        headers = {AUTH_HEADER: header} if header else {}
        query = {"fromImage": image.name, "tag": image.version}
        stream = None
        with anyio.move_on_after(limit := patience_s()):
            try:
                stream = await self._engine.stream(
                    "POST", "/images/create", query, headers=headers, patience_s=math.inf
                )
            except EngineRefused as error:
                raise PullFailed(_redacted(error.message, secret), is_transient(error.message)) from None
        if stream is None:
            await self._silent(image, limit)
        try:
            lines = stream.lines()
            while True:
                with anyio.move_on_after(limit := patience_s()) as scope:
                    line = await anext(lines, None)
                if scope.cancelled_caught:
                    await self._silent(image, limit)
                if line is None:
                    break
                before = progress.text
                progress.feed(line)
                pull.answered = pull.answered or progress.begun
                if progress.text != before:
                    pull.report(progress.text)
        finally:
            await stream.close()
        if progress.error:
            raise PullFailed(_redacted(progress.error, secret), is_transient(progress.error))

    async def _silent(self, image: ImageName, waited_s: float) -> NoReturn:
        """Raise that nothing came, and from whom."""
        await self._engine.ping_anew(PING_S)
        raise PullFailed(
            f"nothing came from the registry {image.host} for {waited_s:.0f} s", transient=True
        )

    def _credentials(self, host: str) -> tuple[str, str]:
        """Return (the header's value, what must not be shown). In a worker thread.

        Raises:
            PullFailed: if the password file cannot be read.
        """
        import docker.auth

        registry = self._config.registries.get(host)
        if registry is not None:
            password = _password(host, registry)
            found = {"username": registry.username, "password": password, "serveraddress": host}
            return _header(found), password
        try:
            known = docker.auth.load_config().resolve_authconfig(host)
        except Exception as error:  # Whatever a helper program of the user's login does.
            log.warning("the Docker login for %s cannot be used: %s", host, type(error).__name__)
            return "", ""
        if not known:
            return "", ""
        return _header(known), str(known.get("password") or known.get("Password") or "")


def _header(credentials: dict[str, str]) -> str:
    import docker.auth

    encoded = docker.auth.encode_header(credentials)
    return encoded.decode("ascii") if isinstance(encoded, bytes) else str(encoded)


def _password(host: str, registry: Registry) -> str:
    if registry.password:
        return registry.password
    try:
        return Path(registry.password_file).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, ValueError, IndexError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it holds no password"
        raise PullFailed(
            f"the password for {host} cannot be read from {registry.password_file}: {problem}",
            transient=False,
        ) from None


def _redacted(message: str, secret: str) -> str:
    return message.replace(secret, "***") if secret else message
