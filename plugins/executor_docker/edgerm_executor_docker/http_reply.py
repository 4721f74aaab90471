"""Reads one HTTP/1.1 answer that may never end. No I/O.

Engines' libraries read such answers with a thread for each; one agent may follow hundreds of containers.
RFC 9112: status line and headers (2.1), chunked coding (7.1), length by closing (6.3).
"""

from __future__ import annotations

from typing import Final

MAX_HEAD: Final = 64 << 10
MAX_CHUNK_LINE: Final = 1024


class NotHttp(ValueError):
    """The bytes are not an answer in HTTP."""


class ReplyDecoder:
    """An answer out of pieces of any size.

    Attributes:
        status: its code; 0 until the head is complete.
        headers: names in lower case.
        ended: whether the body is complete. A body without length ends when the connection does.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._rest = bytearray()
        self._chunked = False
        self._left: int | None = None

    @property
    def endless(self) -> bool:
        """Whether the body ends when the connection does, and in no other way."""
        return bool(self.status) and not self._chunked and self._left is None

    def feed(self, data: bytes) -> bytes:
        """Return what of the body has come.

        Raises:
            NotHttp: if it is none.
        """
        self._rest += data
        if not self.status and not self._read_head():
            return b""
        if self.ended:
            return b""
        if self._chunked:
            return self._read_chunks()
        body = bytes(self._rest)
        self._rest.clear()
        if self._left is not None:
            body = body[: self._left]
            self._left -= len(body)
            self.ended = self._left == 0
        return body

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > MAX_HEAD:
                raise NotHttp("the head of the answer does not end")
            return False
        first, *lines = self._rest[:end].decode("latin-1").split("\r\n")
        del self._rest[: end + 4]
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise NotHttp(f"the answer begins with {first[:60]!r}")
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.status = int(rest[:3])
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        if length.isdigit() and not self._chunked and self.status != 101:
            self._left = int(length)
            self.ended = self._left == 0
        self.ended = self.ended or self.status in (204, 304)
        return True

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while self._rest:
            if self._left is None:
                end = self._rest.find(b"\r\n")
                if end < 0:
                    if len(self._rest) > MAX_CHUNK_LINE:
                        raise NotHttp("a chunk does not say its size")
                    break
                size = bytes(self._rest[:end]).partition(b";")[0].strip()
                del self._rest[: end + 2]
                try:
                    self._left = int(size, 16)
                except ValueError:
                    raise NotHttp(f"a chunk says {size[:20]!r} for its size") from None
                if self._left == 0:
                    self.ended = True
                    break
            piece = self._rest[: self._left]
            body += piece
            del self._rest[: len(piece)]
            self._left -= len(piece)
            if self._left or len(self._rest) < 2:
                break
            del self._rest[:2]
            self._left = None
        return bytes(body)
