"""The transport: hands URLs to the listener or the connector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerm_core.interfaces import Connection, Transport
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.url import parse_url

if TYPE_CHECKING:
    from edgerm_transport_ws.listener import WsListener


class WsTransport(Transport):
    """Speaks `ws://` and `wss://`."""

    schemes = frozenset({"ws", "wss"})

    def __init__(self, config: WsConfig) -> None:
        self._config = config

    async def listen(self, url: str) -> WsListener:
        """See `Transport.listen`. Raises ConfigError also if a certificate cannot be used."""
        from edgerm_transport_ws.listener import listen  # Agents dial only, and need no server.

        return await listen(parse_url(url), self._config)

    async def connect(self, url: str) -> Connection:
        """See `Transport.connect`. Raises ConfigError also if a certificate cannot be used."""
        from edgerm_transport_ws.connector import connect

        return await connect(parse_url(url), self._config)
