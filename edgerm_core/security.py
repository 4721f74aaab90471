"""Safe by default: off loopback nothing runs unauthenticated by accident."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from edgerm_core.errors import ConfigError


def is_loopback(url: str) -> bool:
    """Return whether `url` can only be reached from, or only reaches, this machine.

    `memory://` always is. A name other than `localhost` is not, whatever it resolves to today.

    Raises:
        ConfigError: if `url` cannot be read.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ConfigError(url[:80], f"is not a URL: {error}") from error
    if parts.scheme == "memory":
        return True
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def check_exposure(url: str, insecure: bool, section: str, what: str, danger: str = "run tasks") -> None:
    """Refuse `url` off loopback unless the config said so in so many words.

    Parameters:
        section: config section that may allow it, such as `master`.
        what: what is about to happen, such as `listen on`.
        danger: what anyone who reaches it could do.

    Raises:
        ConfigError: with the key to set, and what it means.
    """
    if not insecure and not is_loopback(url):
        raise ConfigError(
            f"{section}.insecure",
            f"refusing to {what} {url}: peers are not authenticated, so anyone who reaches it could "
            f"{danger}; set insecure = true in [{section}] if the network itself is trusted",
        )
