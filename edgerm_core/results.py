"""The file in which a task leaves its result value, for executors whose tasks see a directory.

The variable `EDGERM_RESULT_FILE` tells the task where it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edgerm_core.limits import MAX_RESULT_BYTES

RESULT_NAME: Final = ".edgerm-result"
"""In the task's working directory."""

RESULT_VARIABLE: Final = "EDGERM_RESULT_FILE"


def read_result(path: Path) -> tuple[bytes | None, str]:
    """Return (the result value, why there is none although there is something).

    The task may have put anything there, so links are not followed and pipes not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"its result file cannot be read: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None, "its result file is not a plain file and was ignored"
        pieces: list[bytes] = []
        left = MAX_RESULT_BYTES + 1
        while left and (piece := os.read(descriptor, left)):
            pieces.append(piece)
            left -= len(piece)
        if not left:
            return None, f"its result is larger than {MAX_RESULT_BYTES} bytes and was ignored"
        return b"".join(pieces), ""
    except OSError as error:
        return None, f"its result file cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)
