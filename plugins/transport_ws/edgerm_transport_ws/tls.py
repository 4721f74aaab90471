"""TLS contexts out of the config, and names out of certificates."""

from __future__ import annotations

import ssl
from typing import Any

from edgerm_core.errors import ConfigError
from edgerm_transport_ws.config import WsConfig


def server_context(config: WsConfig) -> ssl.SSLContext:
    """Return the context for listening on wss://.

    Raises:
        ConfigError: naming the key whose file is missing, unreadable or does not fit.
    """
    if not config.certificate:
        raise ConfigError(
            "transport.ws.certificate",
            "listening on wss:// needs a certificate: name its PEM file, and in transport.ws.key its key",
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_chain(context, "certificate", config.certificate, "key", config.key)
    if config.ca:
        _load_authorities(context, config.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(config: WsConfig) -> ssl.SSLContext:
    """Return the context for dialing wss://. Raises as `server_context`."""
    if config.ca:
        # Only this authority: a site's own one is named to keep all others out.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, config.ca)
    else:
        context = ssl.create_default_context()
    if config.client_certificate:
        _load_chain(
            context, "client_certificate", config.client_certificate, "client_key", config.client_key
        )
    return context


def certificate_name(certificate: dict[str, Any] | None) -> str | None:
    """Return whom a verified certificate names: its common name, else its first alternative name.

    Parameters:
        certificate: as `ssl.SSLSocket.getpeercert` returns it.
    """
    if not certificate:
        return None
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            if key == "commonName" and value:
                return str(value)
    for _, value in certificate.get("subjectAltName", ()):
        if value:
            return str(value)
    return None


def _load_chain(
    context: ssl.SSLContext, certificate_key: str, certificate: str, key_key: str, key: str
) -> None:
    for name, path in ((certificate_key, certificate), (key_key, key)):
        if path:
            _check_readable(name, path)
    try:
        # An empty password, because the default is to ask for one on the terminal and wait.
        context.load_cert_chain(certificate, key or None, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{key or certificate} is not the private key of {certificate}"
            raise ConfigError(f"transport.ws.{key_key}", problem) from error
        raise ConfigError(
            f"transport.ws.{certificate_key}",
            f"{certificate}{f' with {key}' if key else ''} is not a PEM certificate with an unencrypted "
            f"private key ({error.reason or error})",
        ) from error


def _load_authorities(context: ssl.SSLContext, ca: str) -> None:
    _check_readable("ca", ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(
            "transport.ws.ca", f"{ca} holds no PEM certificate of an authority ({error.reason or error})"
        ) from error


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"transport.ws.{name}", f"{path} cannot be read: {error.strerror}") from error
