"""Echo over the ws transport beside echo over plain websockets: messages per second, memory per connection.

    python benchmarks/transport_ws.py [--seconds 3] [--runs 3] [--connections 1,200] [--idle 1000]

The server is a process of its own; the clients share this one, each with one message on its way. Both
sides of a pair run the same library. Printed are the median of the runs with least and most, and the
ratio of the medians. Plain websockets runs without compression and pings, as the transport does here.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from edgerm_transport_ws.config import WsConfig
from edgerm_transport_ws.transport import WsTransport
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from edgerm_core.errors import ConnectionClosed
from edgerm_core.interfaces import Connection

MESSAGE = bytes(24)
"""The size of a heartbeat with something in it."""

Exchange = Callable[[], Awaitable[None]]
Close = Callable[[], Awaitable[None]]

CONFIG = WsConfig(ping_interval_s=0)


async def serve_edgerm() -> None:
    async def echo(connection: Connection) -> None:
        try:
            while True:
                await connection.send(await connection.receive())
        except ConnectionClosed:
            pass

    listener = await WsTransport(CONFIG).listen("ws://127.0.0.1:0")
    print(listener.url, flush=True)
    await listener.serve(echo)


async def serve_websockets() -> None:
    async def echo(stream: ServerConnection) -> None:
        async for message in stream:
            await stream.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await anyio.sleep_forever()


async def dial_edgerm(url: str) -> tuple[Exchange, Close]:
    connection = await WsTransport(CONFIG).connect(url)

    async def exchange() -> None:
        await connection.send(MESSAGE)
        await connection.receive()

    return exchange, connection.close


async def dial_websockets(url: str) -> tuple[Exchange, Close]:
    stream = await connect(url, compression=None, ping_interval=None, proxy=None)

    async def exchange() -> None:
        await stream.send(MESSAGE)
        await stream.recv()

    return exchange, stream.close


SERVERS = {"edgerm": serve_edgerm, "websockets": serve_websockets}
DIALERS = {"edgerm": dial_edgerm, "websockets": dial_websockets}


@contextmanager
def server_process(kind: str) -> Iterator[tuple[str, int]]:
    """Yield the URL and the process id of a server."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.communicate()


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


async def messages_per_s(kind: str, connections: int, seconds: float) -> float:
    with server_process(kind) as (url, _):
        peers = [await DIALERS[kind](url) for _ in range(connections)]
        count = 0
        until = time.monotonic() + 0.5  # Warming up.

        async def run(exchange: Exchange) -> None:
            nonlocal count
            while time.monotonic() < until:
                await exchange()
                count += 1

        for _ in range(2):
            count = 0
            start = time.monotonic()
            async with anyio.create_task_group() as group:
                for exchange, _close in peers:
                    group.start_soon(run, exchange)
            rate = count / (time.monotonic() - start)
            until = time.monotonic() + seconds
        for _, close in peers:
            await close()
        return rate


async def bytes_per_connection(kind: str, connections: int) -> float:
    with server_process(kind) as (url, pid):
        exchange, close = await DIALERS[kind](url)
        await exchange()
        before = resident_bytes(pid)
        peers = []
        for _ in range(connections):
            peers.append(await DIALERS[kind](url))
            await peers[-1][0]()
        used = resident_bytes(pid) - before
        for _, close_peer in [*peers, (exchange, close)]:
            await close_peer()
        return used / connections


def report(title: str, unit: str, figures: dict[str, list[float]]) -> None:
    print(title)
    for kind, values in figures.items():
        print(
            f"  {kind:<11}{statistics.median(values):>10,.0f} {unit} "
            f"({min(values):,.0f} to {max(values):,.0f}, {len(values)} runs)"
        )
    ratio = statistics.median(figures["edgerm"]) / statistics.median(figures["websockets"])
    print(f"  edgerm / websockets: {ratio:.2f}\n")


async def compare(arguments: argparse.Namespace) -> None:
    for connections in map(int, arguments.connections.split(",")):
        figures: dict[str, list[float]] = {kind: [] for kind in SERVERS}
        for _ in range(arguments.runs):
            for kind, values in figures.items():
                values.append(await messages_per_s(kind, connections, arguments.seconds))
        report(f"echo, {connections} connections", "messages/s", figures)
    figures = {kind: [] for kind in SERVERS}
    for _ in range(arguments.runs):
        for kind, values in figures.items():
            values.append(await bytes_per_connection(kind, arguments.idle))
    report(f"server memory, {arguments.idle} idle connections", "bytes each", figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=sorted(SERVERS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--connections", default="1,200")
    parser.add_argument("--idle", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.serve:
        anyio.run(SERVERS[arguments.serve])
    else:
        anyio.run(compare, arguments)


if __name__ == "__main__":
    main()
