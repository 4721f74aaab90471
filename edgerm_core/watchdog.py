"""Says in the log what keeps a daemon's event loop from turning, such as a plugin that never returns.

What the master breaks off (`master/timelimit.py`) is the exception: any other call that loops for ever, or
that blocks where it should wait, can only be named, so that the operator knows which plugin to disable.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

import anyio

log = logging.getLogger(__name__)

BLOCKED_S: Final = 10.0
"""An event loop that has not turned for this long is blocked: agents and frameworks wait for it."""

CHECKS: Final = 4
"""So often in that time it is looked whether it has turned."""


async def watch_loop(plugin_of: Callable[[str], str], blocked_s: float = BLOCKED_S) -> None:
    """Watch the event loop this runs in, from a thread of its own, until cancelled.

    Parameters:
        plugin_of: returns the name of the plugin that a module belongs to; empty if none.
    """
    turns = 0
    over = threading.Event()
    loop_thread = threading.get_ident()

    def watch() -> None:
        seen, missed = -1, 0
        while not over.wait(blocked_s / CHECKS):
            # Counted, not timed: a process that was stopped for a while is no blocked one.
            seen, missed = (turns, missed + 1) if turns == seen else (turns, 0)
            if missed == CHECKS:
                culprit = describe(sys._current_frames().get(loop_thread), plugin_of)
                text = (
                    "the event loop has been blocked for %g s by %s: nothing else happens until it returns"
                )
                log.error(text, blocked_s, culprit)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        while True:
            await anyio.sleep(blocked_s / CHECKS / 2)
            turns += 1
    finally:
        over.set()


def describe(frame: FrameType | None, plugin_of: Callable[[str], str]) -> str:
    """Return who is at work in a stack: the innermost plugin, else the innermost code."""
    innermost = frame
    while frame is not None:
        plugin = plugin_of(frame.f_globals.get("__name__", ""))
        if plugin:
            hint = f'[plugins] disable = ["{plugin}"] in the config turns it off'
            return f"plugin {plugin} ({_place(frame)}; {hint})"
        frame = frame.f_back
    return _place(innermost) if innermost is not None else "something unknown"


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} in {frame.f_code.co_filename}:{frame.f_lineno}"
