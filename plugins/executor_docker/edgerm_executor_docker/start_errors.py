"""From an engine's refusal to the error that core reports. No I/O."""

from __future__ import annotations

from typing import Final

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Reason

_INIT_NAMES: Final = ("docker-init", "container-init", "catatonit")

_HINTS: Final = {
    "no command specified": "the image has no command of its own: give args",
    "no command or entrypoint provided": "the image has no command of its own: give args",
    "executable file not found": "the command is not in the image: check args and entrypoint",
    "exec format error": "the image, or its command, is made for another kind of machine",
    "port is already allocated": "another program has the granted port: take it out of the agent's ports",
    "address already in use": "another program has the granted port: take it out of the agent's ports",
    "is already in use by": "a container of that name belongs to somebody else: remove or rename it",
    "no space left on device": "the engine's disk is full: remove unused images (docker image prune)",
}
"""Part of an engine's sentence to what a person can do."""

MAX_MESSAGE: Final = 1000


def lacks_init(message: str) -> bool:
    """Return whether the engine refuses because it has no init."""
    return any(name in message for name in _INIT_NAMES) and (
        "not found" in message or "no such file" in message
    )


def refusal_error(message: str) -> ExecutorError:
    """Return the error for a container that the engine would not make or start, with its own sentence."""
    text = " ".join(message.split())[:MAX_MESSAGE]
    hint = next((hint for part, hint in _HINTS.items() if part in text.lower()), "")
    return ExecutorError(
        f"the engine says: {text}" + (f" ({hint})" if hint else ""),
        reason=Reason.LAUNCH_FAILED,
        # Ports and disks become free again; commands do not appear in images.
        recoverable="already allocated" in text
        or "address already in use" in text
        or "no space left" in text,
    )
