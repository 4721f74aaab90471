"""Ranges that values from a peer must keep, as types that msgspec checks while it decodes.

They cost nothing where a message is built, and the state machines never see a NaN, a negative count
or a number that another language could not hold. What a framework writes in a spec is checked by
`tasks.check_spec` instead, because its answer should name the field of the task.
"""

from __future__ import annotations

import math
import sys
from typing import Annotated, Any, Final

from msgspec import Meta

MAX_INTEGER: Final = (1 << 63) - 1
"""Largest integer on the wire: what a signed 64-bit type holds."""

MAX_DURATION_S: Final = 10 * 365 * 86_400.0
"""Longest duration, ten years: more is a mistake, and infinity cannot be added to a clock."""

MAX_UNIX_S: Final = 253_402_300_799.0
"""Latest time, the end of the year 9999: what calendars of most languages can show."""

Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
"""How many, how far, or a number chosen by a requester."""

Ordinal = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
"""First, second, third …"""

Integer = Annotated[int, Meta(ge=-MAX_INTEGER - 1, le=MAX_INTEGER)]

Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""A number that is neither NaN nor infinite: both poison comparisons, and JSON has neither."""

Seconds = Annotated[float, Meta(ge=0.0, le=MAX_DURATION_S)]
"""A duration."""

UnixSeconds = Annotated[float, Meta(ge=0.0, le=MAX_UNIX_S)]
"""A point in time."""

Word = Annotated[str, Meta(max_length=128)]
"""Machine-readable text: a code, a kind, an identity, a key."""


NOT_PLAIN: Final = "expected text, bytes, finite numbers, booleans, and lists and maps (text keys) of these"
"""What to say about a value that is not plain."""


def is_plain(value: Any, depth: int = 8) -> bool:
    """Return whether `value` is made of maps with text keys, lists, text, bytes, finite numbers,
    booleans and None only, at most `depth` containers deep: what every language can read back."""
    if value is None or isinstance(value, str | bytes | bool):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER - 1 <= value <= MAX_INTEGER
    if isinstance(value, float):
        return math.isfinite(value)
    if depth <= 0:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item, depth - 1) for key, item in value.items())
    return isinstance(value, list | tuple) and all(is_plain(item, depth - 1) for item in value)
