"""A real nginx in front of a master, with the configuration that the plugin's README recommends."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.transport import WsTransport

from edgerm_core.errors import ConnectionClosed, TransportError
from edgerm_core.interfaces import Connection
from edgerm_core.testing.processes import free_port

pytestmark = pytest.mark.anyio

README = Path(__file__).parents[3] / "plugins/transport_ws/README.md"

CONFIG = """
error_log {folder}/error.log;
pid {folder}/nginx.pid;
{user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {upgrade}
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        {location}
    }}
}}
"""


class Proxy(NamedTuple):
    """nginx's two URLs, and the port to which it passes what comes in."""

    ws: str
    wss: str
    master_port: int


def readme_snippets() -> tuple[str, str]:
    """Return the map and the location from the README."""
    blocks = re.findall(r"```nginx\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    return blocks[0], blocks[1]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, certificates: dict[str, str]) -> Iterator[Proxy]:
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if nginx is None:
        problem = "nginx is not installed: apt-get install -y nginx-light"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("nginx")
    # Not from the kernel: it would give the master's, which is free most of the time, to anybody.
    http, https, master = (free_port() for _ in range(3))
    upgrade, location = readme_snippets()
    assert "127.0.0.1:7070" in location
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(
            folder=folder,
            user="user root;" if os.geteuid() == 0 else "",
            upgrade=upgrade,
            location=location.replace("127.0.0.1:7070", f"127.0.0.1:{master}"),
            http=http,
            https=https,
            certificate=certificates["server.pem"],
            key=certificates["server.key"],
        )
    )
    process = subprocess.Popen(
        [nginx, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off;"],
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", https), timeout=5).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None or time.monotonic() > deadline:
                    assert process.stderr is not None
                    pytest.fail(f"nginx does not start: {process.stderr.read().decode()}")
                time.sleep(0.02)
        yield Proxy(f"ws://127.0.0.1:{http}/edgerm/", f"wss://127.0.0.1:{https}/edgerm/", master)
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def dialer(certificates: dict[str, str]) -> WsTransport:
    return WsTransport(WsConfig(ca=certificates["ca.pem"]))


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_messages_pass_both_ways_and_the_reason_of_the_end_too(
    proxy: Proxy, dialer: WsTransport, secure: bool
) -> None:
    listener = await WsTransport(WsConfig()).listen(f"ws://127.0.0.1:{proxy.master_port}")
    local: list[bool] = []

    async def echo_thrice(connection: Connection) -> None:
        local.append(connection.local)
        for _ in range(3):
            await connection.send(await connection.receive())
        await connection.close("that was three")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo_thrice)
            connection = await dialer.connect(proxy.wss if secure else proxy.ws)
            for message in (b"", b"small", os.urandom(connection.max_message_bytes)):
                await connection.send(message)
                assert await connection.receive() == message
            with pytest.raises(ConnectionClosed, match="that was three"):
                await connection.receive()
            await connection.close()
            await listener.close()
    assert local == [False], "whoever comes through a proxy may be anywhere"


async def test_the_master_may_insist_on_the_path_that_the_proxy_passes_on(
    proxy: Proxy, dialer: WsTransport
) -> None:
    listener = await WsTransport(WsConfig()).listen(f"ws://127.0.0.1:{proxy.master_port}/elsewhere")
    with anyio.fail_after(30):
        with pytest.raises(TransportError, match="404"):
            await dialer.connect(proxy.ws)
        await listener.close()


async def test_a_master_that_is_down_behind_the_proxy_is_told_from_a_proxy_that_is_down(
    proxy: Proxy, dialer: WsTransport
) -> None:
    with anyio.fail_after(30), pytest.raises(TransportError, match="502 Bad Gateway: a proxy is there"):
        await dialer.connect(proxy.wss)


async def test_another_path_of_the_proxy_is_no_master(proxy: Proxy, dialer: WsTransport) -> None:
    url = proxy.ws.replace("/edgerm/", "/other/")
    with anyio.fail_after(30), pytest.raises(TransportError, match="404 Not Found: no master is there"):
        await dialer.connect(url)


async def test_a_plain_url_for_the_proxys_tls_port_is_explained(proxy: Proxy, dialer: WsTransport) -> None:
    with anyio.fail_after(30), pytest.raises(TransportError, match="400"):
        await dialer.connect("ws" + proxy.wss[3:])


async def test_a_receiver_behind_the_proxy_that_does_not_read_makes_send_wait(
    proxy: Proxy, dialer: WsTransport
) -> None:
    listener = await WsTransport(WsConfig()).listen(f"ws://127.0.0.1:{proxy.master_port}")
    sent = 0

    async def flood(connection: Connection) -> None:
        nonlocal sent
        for _ in range(64):
            await connection.send(bytes(1 << 20))
            sent += 1

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, flood)
            connection = await dialer.connect(proxy.ws)
            before = -1
            while sent != before:
                before = sent
                await anyio.sleep(0.3)
            assert sent < 64
            for _ in range(64):
                assert len(await connection.receive()) == 1 << 20
            with pytest.raises(ConnectionClosed):
                await connection.receive()
            await connection.close()
            await listener.close()
