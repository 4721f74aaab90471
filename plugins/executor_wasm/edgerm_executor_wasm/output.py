"""What a run prints: into the log rings, and where it is the result, into memory too."""

from __future__ import annotations

import errno
import logging

from edgerm_core.interfaces import Sandbox
from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.logs import STDERR, STDOUT, LogWriter

log = logging.getLogger(__name__)


class Output:
    """Standard output and error of one run. Nothing is made on disk before the first byte.

    wasmtime calls `write_stdout` and `write_stderr` from a thread of its own, one call at a time.

    Attributes:
        captured: standard output so far, if it is the result; at most one byte more than a result may have.
    """

    def __init__(self, sandbox: Sandbox, captures_stdout: bool) -> None:
        self._sandbox = sandbox
        self._writers: dict[str, LogWriter] = {}
        self.captured: bytearray | None = bytearray() if captures_stdout else None

    def write_stdout(self, data: bytes) -> int:
        """Take some of `data`; return how much, or a negative errno."""
        if self.captured is not None:
            self.captured += data[: MAX_RESULT_BYTES + 1 - len(self.captured)]
        return self._write(STDOUT, data)

    def write_stderr(self, data: bytes) -> int:
        """Take some of `data`; return how much, or a negative errno."""
        return self._write(STDERR, data)

    def _write(self, stream: str, data: bytes) -> int:
        try:
            writer = self._writers.get(stream)
            if writer is None:
                writer = LogWriter(self._sandbox.log_dir, stream, self._sandbox.log_limit_bytes)
                self._writers[stream] = writer
            writer.write(data)
        except OSError as error:
            log.warning("output of a module is lost: %s", error)
            return -(error.errno or errno.EIO)
        return len(data)

    def close(self) -> None:
        """Close the rings. Idempotent."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
