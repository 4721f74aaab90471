"""Something happened: wakes those who wait for it, and takes next to no memory while nobody does."""

from __future__ import annotations

import anyio


class Notice:
    """Every connection has several, most of them never waited for; an `anyio.Event` has 800 bytes."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def give(self) -> None:
        """Wake all who wait now."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until the next `give`. Cancel-safe."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
