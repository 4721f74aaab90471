"""An edgerm agent for boards: see docs/micropython.md."""

import sys
from time import ticks_diff, ticks_ms

VERSION = "0.1.0"

_last = ticks_ms()
_now = 0


def now():
    """Return milliseconds since the start; never wraps, as long as somebody asks once a week."""
    global _last, _now
    ticks = ticks_ms()
    _now += ticks_diff(ticks, _last)
    _last = ticks
    return _now


def part(name):
    """Import a module that is needed now and then only. Nothing but its caller keeps it: its memory is free
    again when the caller is done."""
    package = sys.modules["edgerm"]
    try:
        return __import__("edgerm." + name, None, None, ("*",))
    finally:
        # Also if there was no memory for it: half a module would be found there the next time.
        sys.modules.pop("edgerm." + name, None)
        if hasattr(package, name):
            delattr(package, name)
