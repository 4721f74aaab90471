"""What an engine says while it fetches an image. No I/O.

Lines of JSON: Docker Engine API, `POST /images/create`. Podman sends fewer of them.
"""

from __future__ import annotations

from typing import Any, Final

MAX_LAYERS: Final = 1024
"""An image has at most 127; what else sends such lines is not counted."""

_DOWNLOADED: Final = frozenset(
    {"Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Already exists"}
)
_UNPACKED: Final = frozenset({"Pull complete", "Already exists"})

_PERMANENT: Final = (
    "not found",
    "manifest unknown",
    "name unknown",
    "does not exist",
    "denied",
    "unauthorized",
    "authentication required",
    "incorrect username",
    "no basic auth",
    "forbidden",
    "no matching manifest",
    "invalid reference",
    "unsupported",
    "no space left",
    "read-only file system",
)
_TRANSIENT: Final = ("lookup ", "no such host", "timeout", "too many requests", "toomanyrequests")

_PLAIN: Final = (
    "the registry speaks HTTP without TLS: add it to insecure-registries in /etc/docker/daemon.json, or "
    "with insecure = true to Podman's registries.conf"
)
_HINTS: Final = {
    "server gave http response to https client": _PLAIN,
    "does not look like a tls handshake": _PLAIN,
    "not yet valid": "the clock of this machine may be wrong",
}
"""Part of an engine's sentence, in lower case, to what a person can do."""


class Progress:
    """Adds up the layers of one image.

    Attributes:
        error: what the engine says went wrong; empty: nothing so far.
    """

    def __init__(self, image: str) -> None:
        self.error = ""
        self._image = image
        self._bytes: dict[str, tuple[int, int]] = {}
        self._status: dict[str, str] = {}

    def feed(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        if line.get("error"):
            self.error = str(line["error"])
        layer, status = line.get("id"), line.get("status")
        if not isinstance(layer, str) or not isinstance(status, str):
            return
        if status == "Downloading" or status in _DOWNLOADED or status in ("Pulling fs layer", "Waiting"):
            if layer not in self._status and len(self._status) >= MAX_LAYERS:
                return
            self._status[layer] = status
        if status == "Downloading":
            detail = line.get("progressDetail")
            if isinstance(detail, dict) and isinstance(detail.get("current"), int):
                total = detail.get("total")
                current = detail["current"]
                self._bytes[layer] = (current, total if isinstance(total, int) and total > 0 else current)
        elif status in _DOWNLOADED and layer in self._bytes:
            self._bytes[layer] = (self._bytes[layer][1], self._bytes[layer][1])

    @property
    def begun(self) -> bool:
        """Whether the registry has said which layers there are."""
        return bool(self._status)

    @property
    def text(self) -> str:
        """One sentence for the task's story."""
        layers = len(self._status)
        if layers and all(status in _DOWNLOADED for status in self._status.values()):
            done = sum(status in _UNPACKED for status in self._status.values())
            return f"unpacking {self._image}: {done} of {layers} layers"
        current = sum(pair[0] for pair in self._bytes.values())
        total = sum(pair[1] for pair in self._bytes.values())
        if not total:
            return f"pulling {self._image}"
        return f"pulling {self._image}: {_mib(current)} of {_mib(total)} MiB"


def _mib(amount_bytes: int) -> str:
    mib = amount_bytes / (1 << 20)
    return f"{mib:.0f}" if mib >= 10 else f"{mib:.1f}"


def is_transient(message: str) -> bool:
    """Return whether the same pull may succeed later: unless the registry or the disk said a plain no."""
    text = message.lower()
    if any(word in text for word in _TRANSIENT):
        return True
    return not any(word in text for word in _PERMANENT)


def with_hint(message: str) -> str:
    """Return the engine's sentence with what a person can do, where that is known."""
    hint = next((hint for part, hint in _HINTS.items() if part in message.lower()), "")
    return f"{message} ({hint})" if hint else message
