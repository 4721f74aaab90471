"""What happened, as lines for a person and as a digest that two runs can be compared by."""

from __future__ import annotations

import hashlib
from typing import Final

MAX_LINES: Final = 200_000
"""Lines kept of one run; the oldest go, since a failure is explained by what led up to it."""


class Story:
    """The lines of a run, if they are wanted, and the digest of all its bytes.

    Parameters:
        keep: keep lines. Most runs end well and nobody reads them; a failing seed is run again.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.lines: list[str] = []
        self._digest = hashlib.blake2b(digest_size=16)

    def tell(self, now: float, who: str, text: str) -> None:
        """Add a line. Callers that build a costly text ask `keep` first."""
        if not self.keep:
            return
        if len(self.lines) >= MAX_LINES:
            del self.lines[: MAX_LINES // 2]
        self.lines.append(f"{now:10.3f}  {who:<5} {text}")

    def mark(self, now: float, who: str, data: bytes) -> None:
        """Let the digest depend on `data`, and on when and where it was."""
        self._digest.update(f"{now!r} {who} {len(data)} ".encode())
        self._digest.update(data)

    def digest(self) -> str:
        """Return the digest of everything so far, in hexadecimal."""
        return self._digest.hexdigest()
