"""What tasks print: the last part of it, in memory. `logs_service` lets it be read from afar."""

import io

KEPT = 2
"""Logs of ended tasks that stay readable."""


class Ring(io.IOBase):
    """The last part of what an attempt has printed.

    Parameters:
        key: task id and attempt.
        size: in bytes.

    Attributes:
        end: how many bytes it has printed in all.
        live: whether more may come.
    """

    def __init__(self, key, size):
        self.key = key
        self.live = True
        self.end = 0
        self.ring = bytearray(size)

    def write(self, text):
        """Take text or bytes, as files do."""
        for byte in text.encode() if isinstance(text, str) else text:
            self.ring[self.end % len(self.ring)] = byte
            self.end += 1
        return len(text)


def open_ring(rings, key, size):
    """Return the ring of an attempt: the one it has, which goes on through restarts, or a new one."""
    for ring in rings:
        if ring.key == key:
            ring.live = True
            return ring
    ended = [ring for ring in rings if not ring.live]
    if len(ended) >= KEPT:
        rings.remove(ended[0])
    rings.append(Ring(key, size))
    return rings[-1]
