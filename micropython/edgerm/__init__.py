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
    module = __import__("edgerm." + name, None, None, ("*",))
    del sys.modules["edgerm." + name]
    delattr(sys.modules["edgerm"], name)
    return module
