"""Listening: addresses that cannot be listened on, handlers that fail."""

from __future__ import annotations

import pytest
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.errors import TransportError

from .raw import listening, peer_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp", "coap+ws"])
async def test_addresses_that_cannot_be_listened_on(scheme: str) -> None:
    for url, problem in (
        (f"{scheme}://192.0.2.1:5683", "is no address of this machine"),
        (f"{scheme}://nobody.invalid:5683", "has no address"),
    ):
        with pytest.raises(TransportError, match=problem):
            await CoapTransport(CoapConfig()).listen(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0.0.0.0", "[::]"])
async def test_the_url_has_the_port_that_was_bound(host: str) -> None:
    listener = await CoapTransport(CoapConfig()).listen(f"coap://{host}:0")
    assert listener.url.startswith(f"coap://{host}:")
    assert not listener.url.endswith(":0")
    await listener.close()
    await listener.serve(_never)  # Over at once.


async def test_all_ipv6_addresses_leave_ipv4_to_another_listener() -> None:
    transport = CoapTransport(CoapConfig())
    six = await transport.listen("coap://[::]:0")
    four = await transport.listen(f"coap://0.0.0.0:{six.url.rpartition(':')[2]}")
    for listener in (six, four):
        await listener.close()


async def test_a_session_knows_whether_its_peer_is_on_this_machine() -> None:
    async with listening() as listener, peer_of(listener) as peer:
        await peer.open()
        (session,) = listener.resources.sessions.values()
        assert session.local
        assert session.peer.startswith("coap://127.0.0.1:")


async def _never(connection: object) -> None:
    raise AssertionError("nobody can come")
