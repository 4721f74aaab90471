"""The contract of transports over coap://, coap+tcp:// and coap+ws://."""

from __future__ import annotations

import anyio
import msgspec
import pytest
from edgerm_transport_coap.config import CoapConfig
from edgerm_transport_coap.listener import CoapListener, Handler
from edgerm_transport_coap.transport import CoapTransport

from edgerm_core.interfaces import Transport
from edgerm_core.testing.contracts import transport as contract
from edgerm_core.testing.contracts.transport import SMALL_MESSAGE_BYTES, TransportContract

from .proxy import Proxy


class CoapContract(TransportContract):
    @pytest.fixture(autouse=True)
    def _short_flood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Still far more than both ends keep, and over within the suite's patience, block by block.

        Which is longer: some of it takes 8 s of a quiet machine, with what is lost.
        """
        monkeypatch.setattr(contract, "FLOOD_MESSAGES", 64)
        monkeypatch.setattr(contract, "PATIENCE_S", 60.0)

    @pytest.fixture
    def config(self) -> CoapConfig:
        return CoapConfig()

    @pytest.fixture
    def transport(self, config: CoapConfig) -> Transport:
        return CoapTransport(config)

    @pytest.fixture
    def small_transport(self, config: CoapConfig) -> Transport:
        return CoapTransport(msgspec.structs.replace(config, max_message_bytes=SMALL_MESSAGE_BYTES))

    @pytest.fixture
    def listen_url(self) -> str:
        return "coap://127.0.0.1:0"


class TestUdp(CoapContract):
    @pytest.fixture
    def bad_urls(self) -> list[str]:
        return [
            "coap://",
            "coap+tcp://",
            "coap://:5683",
            "coap://host:port",
            "coap://host:99999",
            "coap://host/path",
            "coap://a b:1",
            "http://a:1",
        ]


class TestUdp6(CoapContract):
    @pytest.fixture
    def listen_url(self) -> str:
        return "coap://[::1]:0"


class TestTcp(CoapContract):
    @pytest.fixture
    def listen_url(self) -> str:
        return "coap+tcp://127.0.0.1:0"


class TestWebSocket(CoapContract):
    @pytest.fixture
    def listen_url(self) -> str:
        return "coap+ws://127.0.0.1:0"


class TestBadNetwork(CoapContract):
    """Each datagram may be lost, doubled, late, or overtake another one."""

    LOSS = 0.1

    @pytest.fixture
    def config(self) -> CoapConfig:
        return CoapConfig(
            ack_timeout_s=0.02, keepalive_s=0.3, silence_s=16, max_message_bytes=SMALL_MESSAGE_BYTES + 1
        )

    @pytest.fixture
    def transport(self, config: CoapConfig) -> Transport:
        return BadNetworkTransport(config, self.LOSS)

    @pytest.fixture
    def small_transport(self, config: CoapConfig) -> Transport:
        small = msgspec.structs.replace(config, max_message_bytes=SMALL_MESSAGE_BYTES)
        return BadNetworkTransport(small, self.LOSS)


class BadNetworkTransport(CoapTransport):
    """Peers dial through a proxy in front of the listener, whose URL is the proxy's."""

    def __init__(self, config: CoapConfig, loss: float) -> None:
        super().__init__(config)
        self._loss = loss

    async def listen(self, url: str) -> CoapListener:
        listener = await super().listen(url)
        proxy = Proxy(("127.0.0.1", int(listener.url.rpartition(":")[2])), seed=7)
        proxy.loss, proxy.doubling, proxy.delay_s = self._loss, 0.1, 0.001
        return BehindProxy(listener, proxy)


class BehindProxy(CoapListener):
    """A listener whose address is that of the proxy in front of it."""

    def __init__(self, listener: CoapListener, proxy: Proxy) -> None:
        self.url = proxy.url
        self._listener = listener
        self._proxy = proxy

    async def serve(self, handler: Handler) -> None:
        await self._listener.serve(handler)

    async def close(self) -> None:
        await self._listener.close()
        await anyio.sleep(0.01)  # What is under way may still arrive.
        self._proxy.close()
