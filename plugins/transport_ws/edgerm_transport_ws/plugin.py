"""Registers the transport `ws`."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider, Transport
from edgerm_transport_ws.config import WsConfig


def _create(config: WsConfig) -> Transport:
    from edgerm_transport_ws.transport import WsTransport

    return WsTransport(config)


@hookimpl
def transports() -> Iterable[Provider[Transport]]:
    """Provide `ws`."""
    yield Provider(
        name="ws",
        create=_create,
        config_type=WsConfig,
        summary="WebSocket, plain and over TLS (ws://, wss://)",
        schemes=frozenset({"ws", "wss"}),
    )
