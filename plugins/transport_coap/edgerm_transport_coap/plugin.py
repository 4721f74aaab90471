"""Registers the transport `coap`."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Provider, Transport
from edgerm_transport_coap.config import CoapConfig


def _create(config: CoapConfig) -> Transport:
    from edgerm_transport_coap.transport import CoapTransport

    return CoapTransport(config)


@hookimpl
def transports() -> Iterable[Provider[Transport]]:
    """Provide `coap`."""
    yield Provider(
        name="coap",
        create=_create,
        config_type=CoapConfig,
        summary="CoAP over UDP, TCP and WebSocket (coap://, coap+tcp://, coap+ws://)",
        schemes=frozenset({"coap", "coap+tcp", "coap+ws"}),
    )
