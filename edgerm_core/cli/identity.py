"""Which framework a command submits as.

Commands of one user on one machine share a few framework ids: each takes the first that no other
command holds at the moment. So a thousand runs, one after the other, are one framework with a
history in `edgerm ps --all` rather than a thousand frameworks, and runs at the same time do not end
each other's sessions.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from edgerm_core.config import default_data_dir
from edgerm_core.ids import check_name

MAX_SLOTS: Final = 1_000
"""Commands of one user at the same time; more get an id for themselves alone."""

MAX_PREFIX_CHARS: Final = 40


@contextmanager
def held_framework_id(name: str, directory: Path | None = None) -> Iterator[str]:
    """Hold a framework id that begins with `name` for as long as the block runs.

    Where the directory cannot be written the id is a new one, used once.

    Parameters:
        directory: where ids are kept; None: the data directory for clients.

    Raises:
        SpecError: if `name` is not a name.
    """
    prefix = check_name(name, "framework")[:MAX_PREFIX_CHARS]
    held = _hold(prefix, directory or default_data_dir("client"))
    if held is None:
        yield f"{prefix}-{uuid.uuid4().hex[:12]}"
        return
    framework_id, lock = held
    with lock:
        yield framework_id


def _hold(prefix: str, directory: Path) -> tuple[str, IO[str]] | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        owner = _owner(directory)
        for slot in range(MAX_SLOTS):
            lock = open(directory / f"{prefix}-{slot}.lock", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            return f"{prefix}-{owner}-{slot}", lock
    except OSError:
        pass
    return None


def _owner(directory: Path) -> str:
    """Return what tells this user on this machine from all others; made once."""
    path = directory / "owner"
    try:
        with open(path, "x") as file:
            file.write(uuid.uuid4().hex[:8])
    except FileExistsError:
        pass
    owner = path.read_text().strip()
    if not owner.isalnum():
        raise OSError(f"{path} is damaged")
    return owner
