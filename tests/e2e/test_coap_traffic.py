"""Bytes between a real master and a real agent on CoAP, counted by a proxy between them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster, cluster_in
from tests.plugins.transport_coap.proxy import Proxy, proxy_to

IDLE_HEARTBEAT_BYTES = 40
"""Of UDP payload, each way."""

TASK_START_BYTES = 300
"""Of UDP payload, all together: the order, two updates, and their acknowledgements."""


@contextmanager
def counting(url: str) -> Iterator[Proxy]:
    """A proxy in a thread of its own, because the cluster's helpers block."""
    ready, done = threading.Event(), threading.Event()
    found: list[Proxy] = []

    async def run() -> None:
        async with proxy_to(url) as proxy:
            found.append(proxy)
            ready.set()
            while not done.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        done.set()
        thread.join()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    config = "[master]\nheartbeat_s = 2.0\nlease_grace_s = 5.0\n"
    with cluster_in(tmp_path, config, schemes=("ws", "coap")) as cluster:
        cluster.start_master()
        yield cluster


def test_heartbeats_and_starts_of_tasks_cost_few_bytes(cluster: Cluster) -> None:
    with counting(cluster.urls["coap"]) as proxy:
        cluster.start_agent("node", url=proxy.url)
        seen = wait_until_quiet(proxy)
        cluster.wait("three heartbeats", lambda: len(proxy.up) >= seen + 3)
        beats_up, beats_down = proxy.up[seen:], proxy.down[-3:]
        print("heartbeats up", [len(data) for data in beats_up], "down", [len(data) for data in beats_down])
        assert max(len(data) for data in (*beats_up, *beats_down)) <= IDLE_HEARTBEAT_BYTES

        wait_for_heartbeat(proxy)
        up, down = len(proxy.up), len(proxy.down)
        cluster.edgerm("run", "--detach", "--name", "t", "--process", "--", "sleep", "100")
        cluster.wait_for("t", "RUNNING")
        wait_until_quiet(proxy, 0.5)
        datagrams = [("up", len(data)) for data in proxy.up[up:] if not data.endswith(b"\xff\x81\x03")]
        datagrams += [
            ("down", len(data)) for data in proxy.down[down:] if not data.endswith(b"\xff\x81\x04")
        ]
        print("start of a task", datagrams, "sum", sum(size for _, size in datagrams))
        assert sum(size for _, size in datagrams) <= TASK_START_BYTES
        cluster.end_tasks()  # While the proxy is there.


def wait_until_quiet(proxy: Proxy, quiet_s: float = 1.0) -> int:
    """Return how many datagrams have gone up once nothing has for a while."""
    while True:
        seen = len(proxy.up)
        time.sleep(quiet_s)
        if len(proxy.up) == seen:
            return seen


def wait_for_heartbeat(proxy: Proxy) -> None:
    seen = len(proxy.up)
    while len(proxy.up) == seen:
        time.sleep(0.02)
    time.sleep(0.1)
