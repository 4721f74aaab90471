"""Which agent this is, for the labels of its containers: several may share one engine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

NAME: Final = "identity"
_IDENTITY: Final = re.compile(r"[0-9a-f]{16}")


def why_not_kept(state_dir: Path) -> str:
    """Return why the identity cannot be kept there; empty: it can. Makes nothing."""
    existing = state_dir
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if os.access(existing, os.W_OK | os.X_OK):
        return ""
    return f"{existing} is not writable: set state_dir in [executor.docker], or its owner"


def read_identity(state_dir: Path) -> str:
    """Return the agent's identity, made and kept by the first call. Blocking; idempotent.

    It is kept in a file and not taken from a path: agents in containers have the same paths, and a data
    directory may be moved.

    Raises:
        OSError: if it can be neither read nor made.
    """
    path = state_dir / NAME
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            text = path.read_text(encoding="ascii", errors="replace").strip()
            if _IDENTITY.fullmatch(text):
                return text
            path.unlink()  # Cut off by a power failure, or written by something else.
        state_dir.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{NAME}.{secrets.token_hex(4)}")
        with new.open("w", encoding="ascii") as file:
            file.write(secrets.token_hex(8) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link does not replace what another process has made meanwhile.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(new)
        finally:
            new.unlink()
    return path.read_text(encoding="ascii").strip()
