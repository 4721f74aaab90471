"""CoAP URLs, taken apart and checked."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from edgerm_core.errors import ConfigError

DEFAULT_PORTS: Final = {"coap": 5683, "coap+tcp": 5683, "coap+ws": 80}
"""RFC 7252, section 6.1; RFC 8323, sections 8.1 and 8.3."""


class Url(msgspec.Struct, frozen=True):
    """A CoAP URL, taken apart.

    Attributes:
        text: as it was written.
        scheme: `coap`, `coap+tcp` or `coap+ws`.
        host: without brackets.
        port: as written, or the scheme's.
        port_given: whether it was written.
    """

    text: str
    scheme: str
    host: str
    port: int
    port_given: bool

    def with_port(self, port: int) -> str:
        """Return the URL with the port that was really bound."""
        return f"{self.scheme}://{host_and_port(self.host, port)}"


def host_and_port(host: str, port: int) -> str:
    """Return an address for people, such as `192.0.2.7:5683` or `[2001:db8::1]:5683`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_url(text: str) -> Url:
    """Take a URL apart.

    Raises:
        ConfigError: if it is not a coap://, coap+tcp:// or coap+ws:// URL with a host and nothing behind.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(text, f"is not a URL: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise ConfigError(text, "is not a CoAP URL: expected something like coap://127.0.0.1:5683")
    if not host:
        raise ConfigError(
            text, "has no host: write coap://0.0.0.0 for all IPv4 addresses, coap://[::] for IPv6"
        )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(text, "has characters that a URL cannot have")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(text, f"is not a URL: {host!r} is not a host name") from error
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(text, "may have a host and a port, but no user, path, query or fragment")
    return Url(
        text=text,
        scheme=parts.scheme,
        host=host,
        port=DEFAULT_PORTS[parts.scheme] if port is None else port,
        port_given=port is not None,
    )
