"""The contract of transports over ws://, wss:// and wss:// with client certificates."""

from __future__ import annotations

import msgspec
import pytest
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.transport import WsTransport

from edgerm_core.interfaces import Transport
from edgerm_core.testing.contracts.transport import SMALL_MESSAGE_BYTES, TransportContract


class WsContract(TransportContract):
    @pytest.fixture
    def config(self) -> WsConfig:
        return WsConfig()

    @pytest.fixture
    def transport(self, config: WsConfig) -> Transport:
        return WsTransport(config)

    @pytest.fixture
    def small_transport(self, config: WsConfig) -> Transport:
        return WsTransport(msgspec.structs.replace(config, max_message_bytes=SMALL_MESSAGE_BYTES))

    @pytest.fixture
    def listen_url(self) -> str:
        return "ws://127.0.0.1:0"


class TestWs(WsContract):
    @pytest.fixture
    def bad_urls(self) -> list[str]:
        return [
            "ws://",
            "wss://",
            "ws://:7070",
            "ws://host:port",
            "ws://host:99999",
            "ws://a b:1",
            "http://a:1",
        ]


class TestWsCompressed(WsContract):
    @pytest.fixture
    def config(self) -> WsConfig:
        return WsConfig(compression=True)


class TestWss(WsContract):
    @pytest.fixture
    def config(self, certificates: dict[str, str]) -> WsConfig:
        return WsConfig(certificate=certificates["server.pem"], key=certificates["server.key"])

    @pytest.fixture
    def dialer(self, certificates: dict[str, str]) -> Transport:
        return WsTransport(WsConfig(ca=certificates["ca.pem"]))

    @pytest.fixture
    def small_dialer(self, certificates: dict[str, str]) -> Transport:
        return WsTransport(WsConfig(ca=certificates["ca.pem"], max_message_bytes=SMALL_MESSAGE_BYTES))

    @pytest.fixture
    def listen_url(self) -> str:
        return "wss://127.0.0.1:0"


class TestWssBothSides(TestWss):
    """One config for both roles, as on a gateway; every peer shows a certificate."""

    @pytest.fixture
    def config(self, certificates: dict[str, str]) -> WsConfig:
        return WsConfig(
            certificate=certificates["server.pem"],
            key=certificates["server.key"],
            ca=certificates["ca.pem"],
            client_certificate=certificates["client.pem"],
            client_key=certificates["client.key"],
        )

    @pytest.fixture
    def dialer(self, transport: Transport) -> Transport:
        return transport

    @pytest.fixture
    def small_dialer(self, small_transport: Transport) -> Transport:
        return small_transport
