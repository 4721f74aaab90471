"""A task's directories on the machine, and who may write there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

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
