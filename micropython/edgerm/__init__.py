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
    path = "edgerm." + name
    # An import for which there was no memory leaves an entry without a value, and the next one of that name
    # crashes (MicroPython 1.29, mp_obj_new_module).
    sys.modules.pop(path, None)
    try:
        return __import__(path, None, None, ("*",))
    finally:
        # Also if there was no memory for it: half a module would be found there the next time.
        sys.modules.pop(path, None)
        if hasattr(package, name):
            delattr(package, name)
