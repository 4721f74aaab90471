"""The dialing side, and what to say when dialing fails."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator

import anyio

from edgerm_core.errors import TransportError
from edgerm_core.security import is_loopback
from edgerm_transport_coap.carrier import Carrier, CarrierLost
from edgerm_transport_coap.config import DEFAULT_FRAME_BYTES, CoapConfig
from edgerm_transport_coap.connection import CoapConnection
from edgerm_transport_coap.message import (
    CREATED,
    LOCATION_PATH,
    MORE,
    POST,
    UNAVAILABLE,
    URI_PATH,
    URI_QUERY,
    Message,
    Options,
    code_name,
)
from edgerm_transport_coap.url import Url


class _NoMaster(Exception):
    """Something else answers there; the text goes on behind the URL."""


async def connect(url: Url, config: CoapConfig) -> CoapConnection:
    """Dial and open a session, which proves that the master is there. Cancel-safe.

    Raises:
        TransportError: if nobody answers, or answers wrongly; the sentence says what to check.
    """
    problem = "has no address"
    try:
        async with asyncio.timeout(config.open_timeout_s):
            async for carrier in _carriers(url, config):
                connection = None
                try:
                    answer = await carrier.request(POST, _opening(config))
                    problem = _explain_answer(answer)
                    if not problem:
                        connection = _connection(carrier, url, answer, config)
                        return connection
                except CarrierLost as error:
                    problem = str(error)
                finally:
                    if connection is None:
                        with anyio.CancelScope(shield=True):
                            await carrier.close()
    except TimeoutError:
        problem = (
            f"did not answer within {config.open_timeout_s:g} s: check the address, that the master "
            f"listens on {url.scheme}://, and that no firewall swallows it"
        )
    except OSError as error:
        problem = _explain_failure(url, error)
    except _NoMaster as error:
        problem = str(error)
    raise TransportError(f"{url.text} {problem}")


def _opening(config: CoapConfig) -> Options:
    """Return the options of an opening: where to, and what the session shall be like."""
    options: Options = [(URI_PATH, b"e")]
    if config.max_message_bytes != DEFAULT_FRAME_BYTES:
        options.append((URI_QUERY, b"m=%d" % config.max_message_bytes))
    if config.round_trip_s:
        options.append((URI_QUERY, b"t=%d" % math.ceil(config.round_trip_s)))
    return options


async def _carriers(url: Url, config: CoapConfig) -> AsyncIterator[Carrier]:
    """Yield a way to each address of the master. Raises OSError if there is none."""
    local = is_loopback(url.text)
    if url.scheme != "coap":
        yield await _stream_carrier(url, config, local)
        return
    from edgerm_transport_coap.datagram_carrier import DatagramCarrier, connected_socket

    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
    unreachable: OSError | None = None
    for family, _, _, _, address in found:
        try:
            sock = connected_socket(family, address)
        except OSError as error:
            unreachable = error
            continue
        unreachable = None
        yield DatagramCarrier(sock, local, config)
    if unreachable is not None:
        raise unreachable


async def _stream_carrier(url: Url, config: CoapConfig, local: bool) -> Carrier:
    from edgerm_transport_coap.stream_carrier import StreamCarrier
    from edgerm_transport_coap.streams import StreamEnded, open_tcp, open_websocket

    try:
        if url.scheme == "coap+tcp":
            stream = await open_tcp(url.host, url.port)
        else:
            stream = await open_websocket(url.host, url.port, local)
    except StreamEnded as error:
        raise _NoMaster(str(error)) from error
    return StreamCarrier(stream, local, config)


def _connection(carrier: Carrier, url: Url, answer: Message, config: CoapConfig) -> CoapConnection:
    name = [value for number, value in answer.options if number == LOCATION_PATH][1]
    first = (answer.frame, answer.option(MORE) is not None)
    return CoapConnection(carrier, url.text, name, first, config)


def _explain_answer(answer: Message) -> str:
    """Return what is wrong with the answer to an opening; empty: nothing."""
    words = "".join(c if c.isprintable() else "?" for c in answer.payload[:200].decode(errors="replace"))
    location = [value for number, value in answer.options if number == LOCATION_PATH]
    if answer.code == CREATED and len(location) == 2 and location[0] == b"e":
        return ""
    if answer.code == UNAVAILABLE:
        return (
            "has too many sessions and takes no more: try again later, or raise transport.coap.max_sessions"
        )
    return (
        f"answered {code_name(answer.code)}{f' ({words})' if words else ''}: a CoAP server is there, "
        f"but no edgerm master"
    )


def _explain_failure(url: Url, error: OSError) -> str:
    """Return the end of a sentence that begins with the URL: what happened, and what to check."""
    if isinstance(error, socket.gaierror):
        return f"cannot be found: the name {url.host} has no address ({error.strerror}); check name and DNS"
    if isinstance(error, ConnectionRefusedError) or "[Errno 111]" in str(error):
        default = "" if url.port_given else f"; the URL names no port, which means {url.port}"
        return f"refused the connection: nobody listens there; is the master running?{default}"
    return f"cannot be reached: {error.strerror or error}"
