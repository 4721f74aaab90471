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

pytestmark = pytest.mark.timeout(240)

IDLE_HEARTBEAT_BYTES = 40
"""Of UDP payload, each way."""

TASK_START_BYTES = 300
"""Of UDP payload, all together: the order, two updates, and their acknowledgements."""

STARTS = 3
"""One costs more if a daemon is held up meanwhile: what is repeated, or answered later, comes on top. The
cheapest is what a start costs."""

HEARTBEAT, HEARTBEAT_ACK = b"\xff\x81\x03", b"\xff\x81\x04"
"""How a datagram ends that carries nothing else."""

READY_S = 60.0


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
    assert ready.wait(READY_S)
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
        cluster.wait("three heartbeats", lambda: min(map(len, heartbeats(proxy))) >= 3)
        beats_up, beats_down = heartbeats(proxy)
        print("heartbeats up", beats_up, "down", beats_down)
        assert max(*beats_up, *beats_down) <= IDLE_HEARTBEAT_BYTES
        assert (
            min(start_bytes(cluster, proxy, f"t{number}") for number in range(STARTS)) <= TASK_START_BYTES
        )


def heartbeats(proxy: Proxy) -> tuple[list[int], list[int]]:
    """Return the sizes of all heartbeats so far, and of their answers."""
    up = [len(data) for data in list(proxy.up) if data.endswith(HEARTBEAT)]
    return up, [len(data) for data in list(proxy.down) if data.endswith(HEARTBEAT_ACK)]


def start_bytes(cluster: Cluster, proxy: Proxy, name: str) -> int:
    """Start a task, and end it; return what its start has cost."""
    wait_for_heartbeat(proxy)
    up, down = len(proxy.up), len(proxy.down)
    cluster.edgerm("run", "--detach", "--name", name, "--process", "--", "sleep", "100")
    cluster.wait_for(name, "RUNNING")
    wait_until_quiet(proxy, 0.5)
    datagrams = [("up", len(data)) for data in proxy.up[up:] if not data.endswith(HEARTBEAT)]
    datagrams += [("down", len(data)) for data in proxy.down[down:] if not data.endswith(HEARTBEAT_ACK)]
    size = sum(size for _, size in datagrams)
    print("start of a task", datagrams, "sum", size)
    cluster.end_tasks()  # While the proxy is there.
    return size


def wait_until_quiet(proxy: Proxy, quiet_s: float) -> None:
    """Wait until nothing has gone up for a while."""
    while True:
        seen = len(proxy.up)
        time.sleep(quiet_s)
        if len(proxy.up) == seen:
            return


def wait_for_heartbeat(proxy: Proxy) -> None:
    """Wait until what is under way has ended with a heartbeat and its answer."""
    seen = len(heartbeats(proxy)[1])
    while len(heartbeats(proxy)[1]) == seen:
        time.sleep(0.02)
    wait_until_quiet(proxy, 0.1)
