"""The dialing side, and what to say when dialing fails."""

from __future__ import annotations

import http
import socket
import ssl

from websockets import exceptions
from websockets.asyncio.client import connect as open_stream
from websockets.typing import Subprotocol

from edgerm_core.errors import TransportError
from edgerm_core.security import is_loopback
from edgerm_transport_ws import tls
from edgerm_transport_ws.config import (
    CLOSE_TIMEOUT_S,
    RECEIVE_QUEUE_FRAMES,
    SUBPROTOCOL,
    WRITE_BUFFER_BYTES,
    WsConfig,
)
from edgerm_transport_ws.connection import WsConnection, is_loopback_address
from edgerm_transport_ws.stream import DialedStream, QuietLogger
from edgerm_transport_ws.url import Url

_WANTS_CERTIFICATE = (
    "it may want a client certificate signed by an authority it trusts "
    "(check transport.ws.client_certificate here, and transport.ws.ca there)"
)


async def connect(url: Url, config: WsConfig) -> WsConnection:
    """Dial. Cancel-safe.

    A proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`, …) is used, but never to this machine.

    Raises:
        TransportError: if nobody answers, or answers wrongly; the sentence says what to check.
        ConfigError: if a certificate cannot be used.
    """
    context = tls.client_context(config) if url.secure else None
    this_machine = is_loopback(url.text)
    try:
        stream = await open_stream(
            url.text,
            ssl=context,
            proxy=None if this_machine else True,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression="deflate" if config.compression else None,
            user_agent_header="edgerm",
            open_timeout=config.open_timeout_s,
            ping_interval=config.ping_interval_s or None,
            ping_timeout=config.ping_timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=config.max_frame_bytes,
            max_queue=RECEIVE_QUEUE_FRAMES,
            write_limit=WRITE_BUFFER_BYTES,
            logger=QuietLogger(),
            create_connection=DialedStream,
        )
    except (OSError, EOFError, ImportError, exceptions.WebSocketException) as error:
        raise TransportError(f"{url.text} {explain_failure(url, config, error)}") from error
    connection = WsConnection(
        stream,
        peer=url.text,
        max_message_bytes=config.max_message_bytes,
        identity=url.host if url.secure else None,
        local=this_machine and is_loopback_address(stream.remote_address),
    )
    if stream.subprotocol != SUBPROTOCOL:
        await connection.close(f"expected {SUBPROTOCOL}")
        raise TransportError(
            f"{url.text} is a WebSocket server, but not an edgerm master: it does not speak {SUBPROTOCOL}"
        )
    return connection


def explain_failure(url: Url, config: WsConfig, error: BaseException) -> str:
    """Return the end of a sentence that begins with the URL: what happened, and what to check."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLError):
            return _explain_tls(url, config, cause)
    if isinstance(error, TimeoutError):
        return (
            f"did not answer within {config.open_timeout_s:g} s: check the address, "
            f"and that no firewall swallows the connection"
        )
    if isinstance(error, socket.gaierror):
        return f"cannot be found: the name {url.host} has no address ({error.strerror}); check name and DNS"
    if isinstance(error, ConnectionRefusedError) or "[Errno 111]" in str(error):
        default = "" if url.port_given else f"; the URL names no port, which means {url.port}"
        return f"refused the connection: nobody listens there; is the master running?{default}"
    if isinstance(error, exceptions.InvalidStatus):
        return _explain_status(error)
    if isinstance(error, exceptions.NegotiationError):
        return f"is a WebSocket server, but not an edgerm master ({error})"
    if isinstance(error, exceptions.ProxyError | exceptions.InvalidProxy):
        return f"cannot be reached through the proxy that the environment names ({error})"
    if url.secure and any(isinstance(cause, EOFError) for cause in _chain(error)):
        # asyncio servers, edgerm's own among them, hang up without the alert that would say why.
        return f"hung up after the TLS handshake: {_WANTS_CERTIFICATE}, or it is no WebSocket server"
    if isinstance(error, exceptions.WebSocketException | EOFError):
        hint = "" if url.secure else "; does it want wss:// instead?"
        return f"did not answer like a WebSocket server: check address and port{hint} ({error})"
    if isinstance(error, ImportError):
        return f"cannot be reached through the proxy that the environment names: {error}"
    assert isinstance(error, OSError)
    if url.secure and isinstance(error, ConnectionResetError):
        return "hung up in the TLS handshake: does it speak TLS, or should the URL begin with ws://?"
    return f"cannot be reached: {error.strerror or error}"


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _explain_tls(url: Url, config: WsConfig, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if "match" in error.verify_message:
            return (
                f"has a certificate for another name: {error.verify_message.rstrip('.')}; dial the name "
                f"that is in the certificate"
            )
        trusted = f"the authorities in {config.ca}" if config.ca else "this system's authorities"
        return (
            f"has a certificate that {trusted} did not sign, or that has expired: {error.verify_message}; "
            f"check transport.ws.ca on this side, and the certificate on the other"
        )
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "alert" in reason:
        return f"refused this side in the TLS handshake ({reason}): {_WANTS_CERTIFICATE}"
    if "wrong version number" in reason or "record layer failure" in reason:
        return "does not speak TLS: should the URL begin with ws://?"
    return f"failed in the TLS handshake: {reason}"


def _explain_status(error: exceptions.InvalidStatus) -> str:
    response = error.response
    try:
        phrase = f" {http.HTTPStatus(response.status_code).phrase}"
    except ValueError:
        phrase = ""
    what = f"answered HTTP {response.status_code}{phrase}"
    if response.headers.get("Server") == "edgerm":
        return f"{what}: {(response.body or b'').decode(errors='replace').strip()}"
    if response.status_code in (502, 503, 504):
        return f"{what}: a proxy is there, but the master behind it is not; is it running?"
    if response.status_code in (401, 403, 407):
        return f"{what}: something in between lets nobody through without its own permission"
    return f"{what}: no master is there; check host, port and path of the URL"
