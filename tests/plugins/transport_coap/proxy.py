"""A bad network in this process: a UDP proxy that loses, doubles, delays and counts datagrams."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

MAX_DATAGRAM_BYTES = 65536


class Proxy:
    """Between dialing peers and one listener. Each peer gets an upstream port of its own, as behind a NAT.

    Attributes:
        loss, doubling: chances of each datagram.
        delay_s: each waits for up to this, so that they overtake each other.
        up, down: datagrams that were handed in, lost ones included.
        silent: lose everything.
    """

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self.loss = 0.0
        self.doubling = 0.0
        self.delay_s = 0.0
        self.silent = False
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self._random = random.Random(seed)
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._flows: dict[Any, socket.socket] = {}
        self._front = self._bound()
        self.port: int = self._front.getsockname()[1]
        self._loop.add_reader(self._front.fileno(), self._on_front)

    @property
    def url(self) -> str:
        return f"coap://127.0.0.1:{self.port}"

    def rebind(self) -> None:
        """Forget all flows, as a NAT does: what comes next leaves from new ports."""
        for flow in self._flows.values():
            self._loop.remove_reader(flow.fileno())
            flow.close()
        self._flows.clear()

    def close(self) -> None:
        if self._front.fileno() < 0:
            return
        self._loop.remove_reader(self._front.fileno())
        self._front.close()
        self.rebind()

    @staticmethod
    def _bound() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        return sock

    def _on_front(self) -> None:
        with suppress(OSError):
            while True:
                data, peer = self._front.recvfrom(MAX_DATAGRAM_BYTES)
                self.up.append(data)
                if peer not in self._flows:
                    flow = self._flows[peer] = self._bound()
                    self._loop.add_reader(flow.fileno(), self._on_flow, flow, peer)
                self._pass(self._flows[peer], data, self._target)

    def _on_flow(self, flow: socket.socket, peer: Any) -> None:
        with suppress(OSError):
            while True:
                data = flow.recv(MAX_DATAGRAM_BYTES)
                self.down.append(data)
                self._pass(self._front, data, peer)

    def _pass(self, sock: socket.socket, data: bytes, to: Any) -> None:
        if self.silent or self._random.random() < self.loss:
            return
        for _ in range(2 if self._random.random() < self.doubling else 1):
            if self.delay_s:
                self._loop.call_later(self._random.random() * self.delay_s, self._send, sock, data, to)
            else:
                self._send(sock, data, to)

    @staticmethod
    def _send(sock: socket.socket, data: bytes, to: Any) -> None:
        with suppress(OSError):  # Forgotten meanwhile.
            sock.sendto(data, to)


@asynccontextmanager
async def proxy_to(url: str, seed: int = 0) -> AsyncIterator[Proxy]:
    """Yield a proxy in front of the listener at `url`."""
    proxy = Proxy(("127.0.0.1", int(url.rpartition(":")[2])), seed)
    try:
        yield proxy
    finally:
        proxy.close()
