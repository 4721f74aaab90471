"""The listener among browsers, scanners and other strangers."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from edgerm_transport_ws import listener as listener_module
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.connection import WsConnection
from edgerm_transport_ws.listener import WsListener
from edgerm_transport_ws.transport import WsTransport
from edgerm_transport_ws.url import parse_url

from edgerm_core.errors import ConfigError, ConnectionClosed, TransportError
from edgerm_core.interfaces import Connection
from edgerm_core.testing.contracts.transport import echo

pytestmark = pytest.mark.anyio

URL = "ws://127.0.0.1:0"

OPEN_S = 5.0
"""For a handshake: enough for those who are well, on a machine that stands still for a while."""


@asynccontextmanager
async def serving(config: WsConfig, url: str = URL) -> AsyncIterator[WsListener]:
    """Yield a listener that echoes, and make sure that it still does when the test is over."""
    listener = await WsTransport(config).listen(url)
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        with anyio.fail_after(30):
            yield listener
            if listener.url.startswith("ws:"):
                connection = await WsTransport(WsConfig()).connect(listener.url)
                await connection.send(b"still well")
                assert await connection.receive() == b"still well"
                await connection.close()
            await listener.close()


async def raw(listener: WsListener, data: bytes) -> bytes:
    """Send bytes to the port and return all that comes back until the listener hangs up.

    Time flies meanwhile: nobody has to wait for as long as the listener does.
    """
    parsed = parse_url(listener.url)
    answer = b""
    async with (
        await anyio.connect_tcp(parsed.host, parsed.port) as stream,
        anyio.create_task_group() as group,
    ):
        group.start_soon(time_flies)
        try:
            if data:
                await stream.send(data)
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            group.cancel_scope.cancel()
    return answer


async def time_flies() -> None:
    """Let the event loop's clock run about ten times as fast."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    ahead = 0.0
    loop.time = lambda: clock() + ahead  # type: ignore[method-assign]
    while True:
        await anyio.sleep(0.01)
        ahead += 0.1


async def until_open(listener: WsListener, count: int) -> None:
    """Wait until the listener has this many TCP connections."""
    while len(listener.streams) != count:  # noqa: ASYNC110 - there is no event for it
        await anyio.sleep(0.005)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing above INFO is logged by anybody."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.usefixtures("quiet")
async def test_a_browser_gets_a_short_answer_that_helps() -> None:
    async with serving(WsConfig()) as listener:
        answer = await raw(listener, b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"This is an edgerm master." in answer
    assert b"Traceback" not in answer
    assert len(answer) < 500


def handshake(*headers: str, path: str = "/edgerm") -> str:
    """Return the request of a WebSocket client."""
    return "\r\n".join(
        [
            f"GET {path} HTTP/1.1",
            "Host: x",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            *headers,
            "\r\n",
        ]
    )


OURS = "Sec-WebSocket-Protocol: edgerm.v1"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param(handshake(), 400, id="no-subprotocol"),
        pytest.param(handshake("Sec-WebSocket-Protocol: chat"), 400, id="other-subprotocol"),
        pytest.param(handshake(OURS, "Origin: http://evil"), 403, id="page-in-a-browser"),
        pytest.param(handshake(OURS, path="/other"), 404, id="other-path"),
    ],
)
async def test_what_is_no_peer_is_refused_over_http(text: str, status: int) -> None:
    async with serving(WsConfig(), "ws://127.0.0.1:0/edgerm") as listener:
        answer = await raw(listener, text.encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="tls"),
        pytest.param(bytes(100_000), id="zeros"),
        pytest.param(b"\n" * 50, id="newlines"),
        pytest.param(b"NONSENSE\r\n\r\n", id="nonsense"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", id="post"),
        pytest.param(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", id="head"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="http-1.0"),
        pytest.param(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", id="long-line"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", id="many-headers"),
    ],
)
async def test_garbage_on_the_port_harms_nobody(data: bytes) -> None:
    async with serving(WsConfig(open_timeout_s=OPEN_S)) as listener:
        answer = await raw(listener, data)
    # Which of them get an answer depends on the release of websockets.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_half_a_handshake_is_cut_after_the_timeout(data: bytes) -> None:
    async with serving(WsConfig(open_timeout_s=OPEN_S)) as listener:
        assert await raw(listener, data) == b""
        assert not listener.streams


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)])
async def test_garbage_on_a_tls_port_harms_nobody(data: bytes, certificates: dict[str, str]) -> None:
    config = WsConfig(
        certificate=certificates["server.pem"], key=certificates["server.key"], open_timeout_s=OPEN_S
    )
    async with serving(config, "wss://127.0.0.1:0") as listener:
        await raw(listener, data)
        connection = await WsTransport(WsConfig(ca=certificates["ca.pem"])).connect(listener.url)
        await connection.send(b"still well")
        assert await connection.receive() == b"still well"
        await connection.close()


async def test_connections_over_the_limit_are_refused_until_one_ends() -> None:
    transport = WsTransport(WsConfig(max_connections=2))
    async with serving(WsConfig(max_connections=2)) as listener:
        first = await transport.connect(listener.url)
        second = await transport.connect(listener.url)
        with pytest.raises(TransportError, match=r"503.*has 2 connections and takes no more"):
            await transport.connect(listener.url)
        await first.close()
        await until_open(listener, 1)
        third = await transport.connect(listener.url)
        for connection in (second, third):
            await connection.send(b"in")
            assert await connection.receive() == b"in"
            await connection.close()
        await until_open(listener, 0)


async def test_a_flood_of_idle_connections_is_cut_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 3)
    async with serving(WsConfig(max_connections=2)) as listener:
        parsed = parse_url(listener.url)
        idle = [await anyio.connect_tcp(parsed.host, parsed.port) for _ in range(5)]
        await until_open(listener, 5)
        assert await raw(listener, b"") == b""
        for stream in idle:
            await stream.aclose()
        await until_open(listener, 0)


async def test_peers_that_dial_again_at_once_do_not_keep_it_from_its_end() -> None:
    """While one peer is slow to say goodbye, others dial again: a master that was told to end went on for
    as long as any of them was there."""
    dialled = 0

    async def dial_again() -> None:
        nonlocal dialled
        while True:
            try:
                connection = await WsTransport(WsConfig()).connect(listener.url)
                dialled += 1
                await connection.receive()
            except (ConnectionClosed, TransportError):
                await anyio.lowlevel.checkpoint()

    async def wait_for_ever(connection: Connection) -> None:
        await connection.receive()

    listener = await WsTransport(WsConfig()).listen(URL)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as peers:
            for _ in range(4):
                peers.start_soon(dial_again)
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, wait_for_ever)
                while dialled < 4:  # noqa: ASYNC110 - there is no event for it
                    await anyio.sleep(0.005)
                silent = await WsTransport(WsConfig()).connect(listener.url)
                assert isinstance(silent, WsConnection)
                silent._stream.transport.pause_reading()
                group.cancel_scope.cancel()
            await listener.close()
            await silent.close()
            peers.cancel_scope.cancel()


async def test_those_who_dial_between_two_serves_are_served_by_the_second() -> None:
    listener = await WsTransport(WsConfig()).listen(URL)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as first:
            first.start_soon(listener.serve, echo)
            await (await WsTransport(WsConfig()).connect(listener.url)).close()
            first.cancel_scope.cancel()
        connection = await WsTransport(WsConfig()).connect(listener.url)
        await connection.send(b"patience")
        async with anyio.create_task_group() as second:
            second.start_soon(listener.serve, echo)
            assert await connection.receive() == b"patience"
            await connection.close()
            await listener.close()


async def test_a_listener_with_a_path_takes_that_path_only() -> None:
    async with serving(WsConfig(), "ws://127.0.0.1:0/edgerm/") as listener:
        assert listener.url.endswith("/edgerm/")
        await (await WsTransport(WsConfig()).connect(listener.url.rstrip("/"))).close()
        with pytest.raises(TransportError, match="404 Not Found: Here is nothing: dial /edgerm/"):
            await WsTransport(WsConfig()).connect(listener.url + "x")


async def test_a_listener_without_a_path_takes_any() -> None:
    async with serving(WsConfig()) as listener:
        await (await WsTransport(WsConfig()).connect(f"{listener.url}/any/path")).close()


@pytest.mark.parametrize("header", ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7", "Via: 1.1 x"])
async def test_a_peer_behind_a_proxy_on_this_machine_is_not_local(header: str) -> None:
    listener = await WsTransport(WsConfig()).listen(URL)
    seen: list[bool] = []
    arrived = anyio.Event()

    async def note(connection: Connection) -> None:
        seen.append(connection.local)
        arrived.set()

    parsed = parse_url(listener.url)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, note)
            async with await anyio.connect_tcp(parsed.host, parsed.port) as stream:
                await stream.send(handshake(OURS, header).encode())
                await arrived.wait()
            await listener.close()
    assert seen == [False]


async def test_a_client_certificate_of_our_authority_becomes_the_identity(
    certificates: dict[str, str],
) -> None:
    config = WsConfig(
        certificate=certificates["server.pem"], key=certificates["server.key"], ca=certificates["ca.pem"]
    )
    agent = WsTransport(
        WsConfig(
            ca=certificates["ca.pem"],
            client_certificate=certificates["client.pem"],
            client_key=certificates["client.key"],
        )
    )
    listener = await WsTransport(config).listen("wss://127.0.0.1:0")
    seen: list[str | None] = []

    async def note(connection: Connection) -> None:
        seen.append(connection.identity)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, note)
            connection = await agent.connect(listener.url)
            assert connection.identity == "127.0.0.1"
            with pytest.raises(ConnectionClosed):
                await connection.receive()
            await connection.close()
            await listener.close()
    assert seen == ["agent-7"]


async def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(TransportError, match=r"192\.0\.2\.1 is no address of this machine"):
        await WsTransport(WsConfig()).listen("ws://192.0.2.1:0")


async def test_a_port_that_is_taken_by_something_else_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            TransportError, match=f"ws://127.0.0.1:{port} is already in use: another master"
        ):
            await WsTransport(WsConfig()).listen(f"ws://127.0.0.1:{port}")


async def test_listening_on_wss_without_a_certificate_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="certificate"):
        await WsTransport(WsConfig()).listen("wss://127.0.0.1:0")


async def test_ipv6_is_listened_on_and_dialed() -> None:
    async with serving(WsConfig(), "ws://[::1]:0") as listener:
        assert listener.url.startswith("ws://[::1]:")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "not allowed to listen on port 443.*CAP_NET_BIND",
        ),
        (socket.gaierror(-2, "Name or service not known"), "the name h has no address"),
        (OSError(errno.ENOBUFS, "No buffer space"), "cannot be listened on: No buffer space"),
    ],
)
def test_why_an_address_cannot_be_bound_is_explained(error: OSError, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(listener_module._explain_bind(parse_url("wss://h"), error))
