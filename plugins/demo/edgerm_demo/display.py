"""What the demonstration shows while it runs: plain lines, or one line that is redrawn on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

LINE_EVERY_S: Final = 1.0
"""How often a plain log gets a line of progress."""

BAR: Final = 24


class Display:
    """Prints to standard output.

    Parameters:
        plain: never redraw a line.
    """

    def __init__(self, plain: bool) -> None:
        self._redraw = sys.stdout.isatty() and not plain
        self._started = time.monotonic()
        self._last_line = 0.0
        self._open = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str = "") -> None:
        """Print a line."""
        if self._open:
            print("\r\033[K", end="")
            self._open = False
        print(text, flush=True)

    def step(self, text: str) -> None:
        """Print a line with the time."""
        self.say(f"[{self.elapsed_s:5.1f} s] {text}")

    def progress(self, text: str) -> None:
        """Show where things stand."""
        if self._redraw:
            # A line that wraps cannot be redrawn.
            line = f"[{self.elapsed_s:5.1f} s] {text}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="", flush=True)
            self._open = True
        elif self.elapsed_s - self._last_line >= LINE_EVERY_S:
            self._last_line = self.elapsed_s
            self.step(text)


def bar(done: int, total: int) -> str:
    """Return a bar such as `[#####.....]`."""
    filled = BAR * done // max(1, total)
    return f"[{'#' * filled}{'.' * (BAR - filled)}]"


def shares(frameworks: Sequence[Mapping[str, Any]]) -> str:
    """Return each framework's dominant share, such as `weather 50 % of cpus`."""
    parts = [f"{row['name']} {100 * row['share']:3.0f} % ({row['running']} running)" for row in frameworks]
    return "   ".join(parts)


def where(agents: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> str:
    """Return what runs where, such as `gateway 3+3  node-a 1+2`, in the order of the frameworks."""
    names = sorted({row["framework"] for row in tasks}, reverse=True)
    cells = []
    for agent in agents:
        counts = [
            sum(1 for t in tasks if t["agent_id"] == agent["id"] and t["framework"] == name)
            for name in names
        ]
        state = "" if agent["state"] == "READY" else f" ({agent['state'].lower()})"
        cells.append(f"{agent['name']} {'+'.join(map(str, counts)) or '0'}{state}")
    return "  ".join(cells)
