"""Message ids that nobody off the path can guess, and that do not come again soon."""

from __future__ import annotations

import array
import os
from typing import Final

IDS: Final = 1 << 16
CHOICE: Final = IDS // 2

RANDOM_BYTES: Final = 1024
"""Asked of the system at once: it takes longer to ask than to answer."""


class MessageIds:
    """Ids for what one endpoint sends, to all of its peers.

    RFC 7252 wants an id to be hard to guess (section 11.4) and not to be used twice with a peer within
    EXCHANGE_LIFETIME (section 4.4), since the peer would take the second message for a copy. Each id is
    drawn from the CHOICE ids that were used longest ago: it is one of 32,768, and comes again after as many
    others at the earliest. To count for each peer would take memory for each address.
    """

    def __init__(self) -> None:
        #: All ids; from `_next` on and around the end, those used longest ago come first.
        self._ids = array.array("H", range(IDS))
        self._next = 0
        self._random = array.array("H")

    def draw(self) -> int:
        """Return the id of the next message."""
        if not self._random:
            self._random.frombytes(os.urandom(RANDOM_BYTES))
        ids, at = self._ids, self._next
        chosen = at + self._random.pop() % CHOICE & IDS - 1
        drawn = ids[chosen]
        ids[chosen] = ids[at]
        ids[at] = drawn
        self._next = at + 1 & IDS - 1
        return drawn
