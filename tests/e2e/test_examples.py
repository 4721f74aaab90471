"""The examples, run against a cluster, print what they should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import CONFIG, WAIT_S, Cluster, cluster_in
from tests.plugins.executor_docker.engine import DockerEngine, running

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(cluster: Cluster, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * WAIT_S,
        env=cluster.environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def two_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("examples")) as cluster:
        cluster.start_master()
        cluster.start_agent("a1")
        cluster.start_agent("a2")
        yield cluster


def test_hello_says_hello(two_agents: Cluster) -> None:
    assert "hello" in run_example(two_agents, "hello.py").lower()


def test_the_map_collects_the_right_results(two_agents: Cluster) -> None:
    # Known of old: below 100, 97 takes the longest, with 118 steps.
    assert "97 takes the most steps to 1: 118" in run_example(two_agents, "map_over_agents.py")


def test_own_placement_uses_both_agents(two_agents: Cluster) -> None:
    output = run_example(two_agents, "own_placement.py", "2")
    assert "goes to a1" in output
    assert "goes to a2" in output
    assert output.count("FINISHED") == 2


def test_one_task_is_a_container_where_there_is_an_engine_and_wasm_where_there_is_none(
    tmp_path: Path,
) -> None:
    with (
        running(DockerEngine) as engine,
        cluster_in(tmp_path, f'{CONFIG}[executor.docker]\nsocket = "{engine.url}"\n') as cluster,
    ):
        engine.import_image("busybox:latest", "")
        cluster.start_master()
        one_cpu = ("--resources", "cpus:1;mem:256MiB")
        cluster.start_agent("gateway", "--executor", "docker", "--executor", "wasm", *one_cpu)
        cluster.start_agent("node", "--executor", "wasm", *one_cpu)
        cluster.edgerm("submit", str(EXAMPLES / "two_implementations.toml"), "--wait")
        rows = cluster.tasks()
        assert {(row["agent"], row["executor"], row["state"]) for row in rows} == {
            ("gateway", "docker", "FINISHED"),
            ("node", "wasm", "FINISHED"),
        }
        assert {cluster.edgerm("logs", row["id"]).stdout for row in rows} == {"1229 primes below 10000\n"}
