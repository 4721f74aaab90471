"""A task's directories on the machine: who may write there, and the result it leaves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgerm_core.limits import MAX_RESULT_BYTES

SHARED_MODE: Final = 0o1777
"""As /tmp has it: everybody may write, nobody may remove what is another's."""

_ROOT: Final = frozenset({"", "0", "root", "0:0", "root:root", "0:root", "root:0"})


def needs_opening(user: str) -> bool:
    """Return whether a container's user is somebody else than the agent.

    Without capabilities not even root may write where the owner's rights do not reach.

    Parameters:
        user: as the container has it, from its options or its image.
    """
    return user not in _ROOT or os.geteuid() != 0


def open_directories(directories: Iterable[Path]) -> None:
    """Let everybody write into the directories that are ours and new. Blocking.

    Raises:
        OSError: if the disk refuses.
    """
    for directory in directories:
        found = directory.stat()
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            continue
        if stat.S_IMODE(found.st_mode) != SHARED_MODE and not any(directory.iterdir()):
            directory.chmod(SHARED_MODE)


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
