"""Takes apart what an engine sends of a container's output. No I/O.

Format: Docker Engine API, `POST /containers/{id}/attach`, "stream format": frames of one byte (1: standard
output, 2: standard error), three zero bytes, four bytes of length, data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from edgerm_core.logs import STDERR, STDOUT

HEADER: Final = struct.Struct(">BxxxI")
MAX_FRAME: Final = 64 << 20
"""Beyond this it is no frame: engines send at most what they read at once, some ten KiB."""

_STREAMS: Final = {0: STDOUT, 1: STDOUT, 2: STDERR}


class NotFrames(ValueError):
    """The bytes do not follow the format."""


class FrameDecoder:
    """Whole frames out of pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield (`stdout` or `stderr`, data) for each frame that is complete.

        Raises:
            NotFrames: if it cannot be one.
        """
        self._rest += data
        start = 0
        while len(self._rest) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(self._rest, start)
            if kind not in _STREAMS or length > MAX_FRAME:
                raise NotFrames(f"the engine sent output that is no frame: kind {kind}, {length} bytes")
            end = start + HEADER.size + length
            if end > len(self._rest):
                break
            yield _STREAMS[kind], bytes(self._rest[start + HEADER.size : end])
            start = end
        del self._rest[:start]


class Message(msgspec.Struct, frozen=True):
    """One entry of an engine's log.

    Attributes:
        at: when the engine read it, as the engine wrote it (RFC 3339, nanoseconds).
        stream: `stdout` or `stderr`.
        data: what was printed.
    """

    at: str
    stream: str
    data: bytes


def read_message(stream: str, frame: bytes) -> Message:
    """Take the time off a frame that was asked for with `timestamps`.

    Raises:
        NotFrames: if it has none.
    """
    at, space, data = frame.partition(b" ")
    if not space or not at[:4].isdigit():
        raise NotFrames(f"the engine sent a log entry without its time: {bytes(frame[:60])!r}")
    return Message(at.decode("ascii", "replace"), stream, data)
