"""Answers LogGet from the rings; there only while somebody reads."""

from edgerm import cbor

STREAMS = 4
"""Logs that can be read at the same time."""

CHUNK_BYTES = 256
"""Of a log in one frame, so that status updates need not wait for it."""


class LogsService:
    """The streams of one session.

    Parameters:
        rings: see `logs`.

    Attributes:
        streams: what is being read; empty: it is over.
    """

    def __init__(self, rings):
        self._rings = rings
        self.streams = []

    def get(self, message):
        """Take a LogGet: begin a stream, or cancel one."""
        message = message + [0, False, False, 0][len(message) - 4 :]
        _, request_id, task_id, kind, offset, follow, cancel, attempt = message[:8]
        self.streams = [each for each in self.streams if each[0] != request_id]
        if cancel:
            return
        found = None
        for ring in self._rings:
            if ring.key[0] == task_id and attempt in (0, ring.key[1]):
                found = ring
        problem = ""
        if found is None:
            problem = "no log of t%d is kept on this board" % task_id
        elif len(self.streams) >= STREAMS:
            problem = "%d logs are being read already" % STREAMS
        elif kind != 1:
            offset, follow = found.end, False  # Everything is printed to one stream, the first.
        elif offset < 0:
            offset = max(0, found.end + offset)
        self.streams.append([request_id, found, offset, follow, problem])

    def has_words(self):
        """Return whether `say` would say something."""
        for _, ring, offset, follow, problem in self.streams:
            if problem or not follow or ring.end > offset or not ring.live:
                return True
        return False

    def say(self, buf, at):
        """Write the next piece of each log and return where they end."""
        for stream in self.streams[:]:
            request_id, ring, offset, follow, problem = stream
            start, data, last = 0, b"", True
            if not problem:
                size = len(ring.ring)
                start = min(max(offset, ring.end - size), ring.end)
                end = min(ring.end, start + CHUNK_BYTES)
                data = bytes([ring.ring[each % size] for each in range(start, end)])
                last = end == ring.end and not (follow and ring.live)
            if data or last:
                try:
                    at = cbor.put(buf, at, (15, request_id, start, data, last, problem))
                except ValueError:
                    break  # No room left in this frame.
                stream[2] = start + len(data)
            if last:
                self.streams.remove(stream)
        return at
