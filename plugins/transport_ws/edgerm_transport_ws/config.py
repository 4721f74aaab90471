"""`[transport.ws]`: the plugin's config section, and the limits that are not the operator's."""

from __future__ import annotations

from typing import Final

import msgspec

from edgerm_core import limits

SUBPROTOCOL: Final = "edgerm.v1"
"""Named in every handshake, so that neither side talks to some other WebSocket service by mistake."""

RECEIVE_QUEUE_FRAMES: Final = 4
"""Frames of one peer waiting to be received; beyond that its socket is not read. The session has a
queue of its own behind this one."""

WRITE_BUFFER_BYTES: Final = 32 << 10
"""Bytes of one peer waiting for its socket; beyond that `send` waits (websockets' default)."""

CLOSE_TIMEOUT_S: Final = 3.0
"""How long a peer may take to say goodbye before the connection is cut."""

LISTEN_BACKLOG: Final = 1024
"""Connections the kernel holds until they are accepted: all agents of a site come back at once."""

MAX_HANDSHAKES: Final = 2048
"""Connections beyond `max_connections` that are still answered, with a refusal; more are cut at once."""


class WsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[transport.ws]`.

    Attributes:
        certificate: PEM file, the listener's certificate and its chain; needed to listen on wss://.
        key: PEM file, its private key; empty: it is in the file of the certificate.
        ca: PEM file, the authorities to trust. Dialing: the master's certificate must be signed by one
            of them (empty: the system's authorities). Listening: every peer must show a certificate
            signed by one of them, whose name becomes its identity (empty: peers show none).
        client_certificate, client_key: PEM files, what to show to a master that asks; the key may be
            in the file of the certificate.
        max_message_bytes: largest message sent or taken.
        max_connections: of one listener; more are answered with HTTP 503.
        ping_interval_s: a ping goes out this often, to keep NATs and proxies from forgetting the
            connection; 0: no pings.
        ping_timeout_s: a peer that has not answered a ping after this, or has taken nothing of what is
            sent to it for an interval and this, is gone.
        open_timeout_s: for the TLS handshake, and again for the WebSocket handshake.
        compression: compress messages (permessage-deflate). Costs each connection some 40 KiB on
            both sides and CPU time; worth it on slow links with large, repetitive messages only.
    """

    certificate: str = ""
    key: str = ""
    ca: str = ""
    client_certificate: str = ""
    client_key: str = ""
    max_message_bytes: int = limits.MAX_MESSAGE_BYTES
    max_connections: int = limits.MAX_CONNECTIONS
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    open_timeout_s: float = 10.0
    compression: bool = False

    @property
    def max_frame_bytes(self) -> int:
        """Largest frame: compression makes what cannot be compressed a little larger.

        A stored block of DEFLATE (RFC 1951, section 3.2.4) adds 5 bytes, and zlib's smallest memory
        level makes one of every 128 bytes. A message is measured again when it is whole.
        """
        return self.max_message_bytes + (self.max_message_bytes // 16 + 64 if self.compression else 0)

    def __post_init__(self) -> None:
        if not 1024 <= self.max_message_bytes <= 1 << 30:
            raise ValueError("max_message_bytes must be 1024 to 1 GiB")
        if not 1 <= self.max_connections <= 1_000_000:
            raise ValueError("max_connections must be 1 to 1000000")
        if not 0 <= self.ping_interval_s <= 86_400:
            raise ValueError("ping_interval_s must be 0 (no pings) to 86400 seconds")
        for key in ("ping_timeout_s", "open_timeout_s"):
            if not 0.05 <= getattr(self, key) <= 86_400:
                raise ValueError(f"{key} must be 0.05 to 86400 seconds")
        if self.key and not self.certificate:
            raise ValueError("key is set without certificate: both are needed to listen on wss://")
        if self.client_key and not self.client_certificate:
            raise ValueError("client_key is set without client_certificate: both are needed")
