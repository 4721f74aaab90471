"""WebSocket URLs, taken apart and checked."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from edgerm_core.errors import ConfigError


class Url(msgspec.Struct, frozen=True):
    """A `ws://` or `wss://` URL, taken apart.

    Attributes:
        text: as it was written.
        secure: whether it is `wss`.
        host: without brackets.
        port: as written, or 80 for ws and 443 for wss.
        port_given: whether it was written.
        path: empty, or starting with `/`.
    """

    text: str
    secure: bool
    host: str
    port: int
    port_given: bool
    path: str


def parse_url(text: str) -> Url:
    """Take a URL apart.

    Raises:
        ConfigError: if it is not a ws:// or wss:// URL with a host.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(text, f"is not a URL: {error}") from error
    if parts.scheme not in ("ws", "wss"):
        raise ConfigError(text, "is not a WebSocket URL: expected something like ws://127.0.0.1:7070")
    if not host:
        raise ConfigError(
            text, "has no host: write ws://0.0.0.0:7070 for all IPv4 addresses, ws://[::]:7070 for IPv6"
        )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(text, "has characters that a URL cannot have: percent-encode them")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(text, f"is not a URL: {host!r} is not a host name") from error
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(text, "may have a host, a port and a path, but no user, query or fragment")
    secure = parts.scheme == "wss"
    return Url(
        text=text,
        secure=secure,
        host=host,
        port=(443 if secure else 80) if port is None else port,
        port_given=port is not None,
        path=parts.path,
    )
