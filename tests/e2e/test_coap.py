"""A master on WebSocket and CoAP at once, agents, frameworks and commands on both: real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from edgerm_core.client import connect_framework, process, task
from edgerm_core.testing.processes import Cluster, cluster_in

pytestmark = pytest.mark.timeout(240)

SCHEMES = ("ws", "coap", "coap+tcp", "coap+ws")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path, schemes=SCHEMES) as cluster:
        cluster.start_master()
        yield cluster


def plain(scheme: str) -> str:
    return scheme.replace("+", "-")


def start_agents(cluster: Cluster) -> None:
    for scheme in SCHEMES:
        attribute = ("--attribute", f"transport={plain(scheme)}")
        cluster.start_agent(plain(scheme), *attribute, url=cluster.urls[scheme], ready=False)
    wait_for_agents(cluster)


def wait_for_agents(cluster: Cluster) -> None:
    def all_there() -> bool:
        rows = {row["name"]: row for row in cluster.rows("agents")}
        return all(rows.get(plain(scheme), {}).get("connected") is True for scheme in SCHEMES)

    cluster.wait("all agents are there", all_there)


def test_agents_and_commands_on_every_transport_work_together(cluster: Cluster) -> None:
    start_agents(cluster)
    for number, commanding in enumerate(SCHEMES):
        for running in (commanding, SCHEMES[number - 1]):
            done = cluster.edgerm(
                *("run", "--constraint", f"transport == {plain(running)}", "--process", "--"),
                *("echo", f"{commanding} {running}"),
                url=cluster.urls[commanding],
            )
            assert f"{commanding} {running}" in done.stdout


def test_frameworks_on_websocket_and_coap_at_once(cluster: Cluster) -> None:
    start_agents(cluster)

    async def submit(scheme: str, done: dict[str, int]) -> None:
        async with connect_framework(cluster.urls[scheme], name=plain(scheme)) as framework:
            work = task(process("true"), cpus=0.1, mem="8MiB")
            for submitted in [await framework.submit(work) for _ in range(10)]:
                assert (await submitted.wait()).exit_code == 0
                done[scheme] = done.get(scheme, 0) + 1

    async def main() -> dict[str, int]:
        done: dict[str, int] = {}
        with anyio.fail_after(150):
            async with anyio.create_task_group() as group:
                for scheme in SCHEMES:
                    group.start_soon(submit, scheme, done)
        return done

    assert anyio.run(main) == dict.fromkeys(SCHEMES, 10)


def test_agents_come_back_to_a_master_that_was_killed(cluster: Cluster) -> None:
    start_agents(cluster)
    for scheme in SCHEMES:
        constraint = ("--constraint", f"transport == {plain(scheme)}")
        cluster.edgerm(
            *("run", "--detach", "--name", plain(scheme), "--cpus", "0.1", *constraint),
            *("--process", "--", "sleep", "300"),
        )
        cluster.wait_for(plain(scheme), "RUNNING")
    cluster.kill("master")
    cluster.start_master()
    wait_for_agents(cluster)
    for scheme in SCHEMES:
        assert cluster.wait_for(plain(scheme), "RUNNING")["attempt"] == 1
