"""Copies what a container prints into the task's log rings.

While all is well the output comes over a connection that was made before the container started (`attach`):
nothing is missed, and a flood is slowed down to what this machine's disk takes. After the agent or the
engine was away, the engine's own bounded log tells what was printed meanwhile, see `joint.py`; from then
on the engine's log is followed.
"""

from __future__ import annotations

import asyncio  # For the type of a background task only.
import logging
import os
from collections.abc import Sequence
from typing import Final

import anyio

from edgerm_core.logs import STDERR, STDOUT, LogReader, LogWriter
from edgerm_executor_docker.api import Engine
from edgerm_executor_docker.background import Background
from edgerm_executor_docker.frames import FrameDecoder, Message, NotFrames, read_message
from edgerm_executor_docker.joint import TAIL_BYTES, find_joint, replayed, since_parameter
from edgerm_executor_docker.streams import EngineGone, EngineRefused, EngineStream

log = logging.getLogger(__name__)

MAX_CATCH_UPS: Final = 4
"""Runs that read the engine's log of what they missed at the same time: each holds it in memory."""

STREAMS: Final = (STDOUT, STDERR)


class CatchUps:
    """Bounds how many runs read what they missed at the same time."""

    def __init__(self) -> None:
        self._semaphore: anyio.Semaphore | None = None

    @property
    def turn(self) -> anyio.Semaphore:
        """To be held while reading."""
        if self._semaphore is None:
            self._semaphore = anyio.Semaphore(MAX_CATCH_UPS)
        return self._semaphore


class Output:
    """The output of one run.

    Parameters:
        log_dir, limit_bytes: where the rings are, and their size.
        bases: how many bytes were in the rings of standard output and error before this run.

    Attributes:
        lost_bytes, lost_why: what could not be written, and why.
    """

    def __init__(
        self,
        engine: Engine,
        background: Background,
        catch_ups: CatchUps,
        log_dir: str,
        limit_bytes: int,
        bases: tuple[int, int],
    ) -> None:
        self._engine = engine
        self._background = background
        self._catch_ups = catch_ups
        self._log_dir = log_dir
        self._limit_bytes = limit_bytes
        self._bases = dict(zip(STREAMS, bases, strict=True))
        self._writers = {stream: LogWriter(log_dir, stream, limit_bytes) for stream in STREAMS}
        self._copying: asyncio.Task[None] | None = None
        self.lost_bytes = 0
        self.lost_why = ""

    @property
    def copying(self) -> bool:
        """Whether what it prints is being copied."""
        return self._copying is not None and not self._copying.done()

    async def attach(self, container: str) -> None:
        """Connect to a container that has not started yet, and copy from then on.

        Raises:
            EngineGone: if the engine does not answer.
            EngineRefused: if it refuses.
        """
        stream = await self._engine.stream(
            "POST",
            f"/containers/{container}/attach",
            {"stream": "1", "stdout": "1", "stderr": "1"},
            hijack=True,
        )
        self._copying = self._background.spawn(self._copy(stream))

    def take_up(self, container: str, ended: bool) -> None:
        """Copy what is missing, and go on copying while it runs. What is being copied is left alone."""
        if not self.copying:
            self._copying = self._background.spawn(self._catch_up(container, ended))

    async def finish(self, patience_s: float) -> None:
        """Wait until all is copied, or that long. Cancel-safe."""
        if self._copying is not None and not self._copying.done():
            await asyncio.wait([self._copying], timeout=patience_s)

    async def close(self) -> None:
        """Stop copying. Idempotent."""
        if self._copying is not None:
            self._copying.cancel()
            await asyncio.wait([self._copying])
        self._close_writers()

    # --- in the background --------------------------------------------------------------------

    async def _copy(self, stream: EngineStream) -> None:
        frames = FrameDecoder()
        try:
            while data := await stream.receive():
                for name, text in frames.feed(data):
                    self._write(name, text)
        except (EngineGone, NotFrames) as error:
            log.debug("output of a container broke off: %s", error)
        finally:
            await stream.close()
            self._close_writers()

    async def _catch_up(self, container: str, ended: bool) -> None:
        try:
            async with self._catch_ups.turn:
                kept = await self._kept_log(container)
                ahead: dict[str, int] = {}
                for name in STREAMS:
                    part = [message for message in kept if message.stream == name]
                    text = b"".join(message.data for message in part)
                    joint = self._joint(name, part)
                    rest = text[joint:]
                    ahead[name] = max(0, joint - len(text))
                    # Engines end an unfinished last line when they keep it.
                    if ended and rest == b"\n" and not self._ring_end(name).endswith(b"\n"):
                        rest = b""
                    self._write(name, rest)
            if not ended:
                await self._follow(container, kept, ahead)
        except (EngineGone, EngineRefused, NotFrames) as error:
            log.debug("the log of container %s cannot be read now: %s", container[:12], error)
        finally:
            self._close_writers()

    async def _kept_log(self, container: str) -> list[Message]:
        stream = await self._logs(container, {})
        frames = FrameDecoder()
        kept: list[Message] = []
        try:
            while data := await stream.receive():
                kept += [read_message(name, frame) for name, frame in frames.feed(data)]
        finally:
            await stream.close()
        return kept

    async def _follow(self, container: str, kept: Sequence[Message], ahead: dict[str, int]) -> None:
        """Copy what the engine notes from now on.

        Parameters:
            kept: what it has noted before.
            ahead: how many bytes beyond that are in the ring already, by stream.
        """
        last = kept[-1].at if kept else ""
        again = replayed(kept)
        more = {"follow": "1"} | ({"since": since_parameter(last)} if last else {})
        stream = await self._logs(container, more)
        frames = FrameDecoder()
        try:
            while data := await stream.receive():
                for name, frame in frames.feed(data):
                    message = read_message(name, frame)
                    if again[message.at] > 0:
                        again[message.at] -= 1
                        continue
                    known = min(ahead[name], len(message.data))
                    ahead[name] -= known
                    self._write(name, message.data[known:])
        finally:
            await stream.close()

    async def _logs(self, container: str, more: dict[str, str]) -> EngineStream:
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", **more}
        return await self._engine.stream("GET", f"/containers/{container}/logs", query)

    # --- rings --------------------------------------------------------------------------------

    def _write(self, name: str, data: bytes) -> None:
        if not data:
            return
        try:
            self._writers[name].write(data)
        except OSError as error:
            # A full disk costs the output, not the task.
            self.lost_bytes += len(data)
            self.lost_why = error.strerror or str(error)

    def _close_writers(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _joint(self, name: str, part: Sequence[Message]) -> int:
        _, end = LogReader(self._log_dir, name).bounds()
        written = end - self._bases[name]
        return find_joint(
            part, self._ring_end(name), written, _written_at(self._log_dir, name), self._limit_bytes
        )

    def _ring_end(self, name: str) -> bytes:
        """Return the last bytes that this run has put into the ring."""
        reader = LogReader(self._log_dir, name)
        first, end = reader.bounds()
        at = max(first, self._bases[name], end - TAIL_BYTES)
        pieces = []
        while at < end:
            start, data = reader.read(at, end - at)
            if not data:
                break
            pieces.append(data)
            at = start + len(data)
        return b"".join(pieces)


def ring_ends(log_dir: str) -> tuple[int, int]:
    """Return how many bytes have ever been in the rings of standard output and error."""
    return LogReader(log_dir, STDOUT).bounds()[1], LogReader(log_dir, STDERR).bounds()[1]


def _written_at(log_dir: str, name: str) -> float:
    """Return when the ring was written last, Unix time in seconds; 0: never."""
    latest = 0.0
    try:
        with os.scandir(log_dir) as entries:
            for entry in entries:
                if entry.name.startswith(f"{name}."):
                    latest = max(latest, entry.stat().st_mtime)
    except FileNotFoundError:
        pass
    return latest
