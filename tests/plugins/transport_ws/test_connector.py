"""Dialing the wrong thing: the sentence says what to check."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import anyio
import pytest
from anyio.abc import SocketStream
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.connector import explain_failure
from edgerm_transport_ws.transport import WsTransport
from edgerm_transport_ws.url import parse_url
from websockets.asyncio.server import ServerConnection, serve

from edgerm_core.errors import TransportError
from edgerm_core.testing.contracts.transport import echo

pytestmark = pytest.mark.anyio


async def dial(url: str, config: WsConfig | None = None) -> str:
    """Return the sentence with which dialing fails."""
    with anyio.fail_after(20), pytest.raises(TransportError) as caught:
        await WsTransport(config or WsConfig()).connect(url)
    assert str(caught.value).startswith(url)
    return str(caught.value)


@asynccontextmanager
async def tcp_server(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers every connection with fixed bytes, or with None never."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            if answer is None:
                await anyio.sleep_forever()
            else:
                await stream.send(answer)

    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with server, anyio.create_task_group() as group:
        group.start_soon(server.serve, handle)
        yield f"127.0.0.1:{server.extra(anyio.abc.SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


@asynccontextmanager
async def master(config: WsConfig, url: str) -> AsyncIterator[str]:
    listener = await WsTransport(config).listen(url)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        yield listener.url
        await listener.close()


def server_config(certificates: dict[str, str], name: str = "server") -> WsConfig:
    return WsConfig(certificate=certificates[f"{name}.pem"], key=certificates[f"{name}.key"])


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "nobody listens there; is the master running?" in await dial(f"ws://127.0.0.1:{port}")


async def test_a_name_with_several_addresses_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "nobody listens there" in await dial(f"ws://localhost:{port}")


def test_a_url_without_a_port_says_which_port_that_means() -> None:
    refused = ConnectionRefusedError(111, "refused")
    assert "names no port, which means 80" in explain_failure(parse_url("ws://h"), WsConfig(), refused)
    assert "names no port" not in explain_failure(parse_url("ws://h:80"), WsConfig(), refused)


def test_a_name_that_does_not_resolve() -> None:
    error = socket.gaierror(-2, "Name or service not known")
    sentence = explain_failure(parse_url("ws://nowhere.invalid:7070"), WsConfig(), error)
    assert sentence.startswith("cannot be found: the name nowhere.invalid has no address")


def test_a_network_without_a_route() -> None:
    error = OSError(113, "No route to host")
    assert (
        explain_failure(parse_url("ws://h:1"), WsConfig(), error) == "cannot be reached: No route to host"
    )


async def test_a_server_that_never_answers() -> None:
    async with tcp_server(None) as address:
        assert "did not answer within 0.2 s" in await dial(f"ws://{address}", WsConfig(open_timeout_s=0.2))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            "502 Bad Gateway: a proxy is there, but the master",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "404 Not Found: no master is there; check host, port",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK: no master is there"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403 Forbidden: something in between"),
        (b"HTTP/1.1 520 Odd\r\nContent-Length: 0\r\n\r\n", "HTTP 520: no master is there"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "did not answer like a WebSocket server: check address and port"),
        (b"", "did not answer like a WebSocket server"),
        (b"\x00" * 50_000, "did not answer like a WebSocket server"),
    ],
)
async def test_a_server_that_is_no_master(answer: bytes, sentence: str) -> None:
    async with tcp_server(answer) as address:
        assert sentence in await dial(f"ws://{address}")


async def test_a_websocket_server_that_is_no_master() -> None:
    async def handler(stream: ServerConnection) -> None:
        await stream.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        assert "not an edgerm master" in await dial(f"ws://127.0.0.1:{port}")


async def test_a_refusal_by_the_master_itself_is_passed_on() -> None:
    async with master(WsConfig(), "ws://127.0.0.1:0/here") as url:
        assert f"{HTTPStatus.NOT_FOUND.value} Not Found: Here is nothing: dial /here" in await dial(
            url + "/there"
        )


async def test_tls_spoken_to_a_plain_port() -> None:
    async with master(WsConfig(), "ws://127.0.0.1:0") as url:
        assert "should the URL begin with ws://?" in await dial("wss" + url[2:])


async def test_a_plain_url_for_a_tls_port(certificates: dict[str, str]) -> None:
    async with master(server_config(certificates), "wss://127.0.0.1:0") as url:
        assert "does it want wss:// instead?" in await dial("ws" + url[3:])


async def test_a_certificate_of_an_authority_that_is_not_trusted(certificates: dict[str, str]) -> None:
    async with master(server_config(certificates), "wss://127.0.0.1:0") as url:
        sentence = await dial(url, WsConfig(ca=certificates["stranger-ca.pem"]))
        assert f"the authorities in {certificates['stranger-ca.pem']} did not sign" in sentence
        assert "check transport.ws.ca on this side" in sentence
        assert "this system's authorities did not sign" in await dial(url)


async def test_a_certificate_that_has_expired(certificates: dict[str, str]) -> None:
    async with master(server_config(certificates, "expired"), "wss://127.0.0.1:0") as url:
        assert "has expired" in await dial(url, WsConfig(ca=certificates["ca.pem"]))


async def test_a_certificate_for_another_name(certificates: dict[str, str]) -> None:
    async with master(server_config(certificates), "wss://127.0.0.2:0") as url:
        sentence = await dial(url, WsConfig(ca=certificates["ca.pem"]))
        assert "has a certificate for another name" in sentence
        assert "127.0.0.2" in sentence


@pytest.mark.parametrize("shown", ["", "stranger", "expired"])
async def test_a_master_that_wants_another_client_certificate(
    shown: str, certificates: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    strict = WsConfig(
        certificate=certificates["server.pem"], key=certificates["server.key"], ca=certificates["ca.pem"]
    )
    config = WsConfig(
        ca=certificates["ca.pem"],
        client_certificate=certificates[f"{shown}.pem"] if shown else "",
        client_key=certificates[f"{shown}.key"] if shown else "",
    )
    async with master(strict, "wss://127.0.0.1:0") as url:
        sentence = await dial(url, config)
    assert "hung up after the TLS handshake: it may want a client certificate" in sentence
    assert "check transport.ws.client_certificate here, and transport.ws.ca there" in sentence
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_server_that_says_in_tls_why_it_refuses_us(certificates: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-verify_return_error"]
    command += ["-cert", certificates["server.pem"], "-key", certificates["server.key"]]
    command += ["-Verify", "1", "-CAfile", certificates["ca.pem"]]
    server = await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with anyio.fail_after(20):
            config = WsConfig(ca=certificates["ca.pem"])
            while True:
                sentence = await dial(f"wss://127.0.0.1:{port}", config)
                if "nobody listens there" not in sentence:
                    break
                await anyio.sleep(0.02)
    finally:
        server.kill()
        await server.aclose()
    assert "refused this side in the TLS handshake" in sentence
    assert "certificate required" in sentence


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with master(WsConfig(), "ws://127.0.0.1:0") as url:
        connection = await WsTransport(WsConfig()).connect(url)
        await connection.close()


async def test_a_proxy_of_the_environment_that_does_not_work_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with tcp_server(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as address:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://{address}")
        sentence = await dial("ws://master.invalid:7070")
    assert "through the proxy that the environment names" in sentence
