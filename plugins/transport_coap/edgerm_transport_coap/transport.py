"""The transport: hands URLs to the listener or the connector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgerm_core.interfaces import Connection, Transport
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.url import parse_url

if TYPE_CHECKING:
    from edgerm_transport_coap.listener import CoapListener


class CoapTransport(Transport):
    """Speaks `coap://`, `coap+tcp://` and `coap+ws://`."""

    schemes = frozenset({"coap", "coap+tcp", "coap+ws"})

    def __init__(self, config: CoapConfig) -> None:
        self._config = config

    async def listen(self, url: str) -> CoapListener:
        """See `Transport.listen`."""
        from edgerm_transport_coap.listener import listen  # Agents dial only, and need no server.

        return await listen(parse_url(url), self._config)

    async def connect(self, url: str) -> Connection:
        """See `Transport.connect`."""
        from edgerm_transport_coap.connector import connect

        return await connect(parse_url(url), self._config)
