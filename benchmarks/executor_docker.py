"""What the docker executor costs: beside the engine's own API, with many containers, and idle.

    python benchmarks/executor_docker.py [TASKS]

- A container is made, started, waited for and removed, one after the other: through the executor, and
  with the very same order over the engine's own API (HTTP over its Unix socket, waiting begun before
  the start), alternating in the same run. The ratio says what durable handles, logs and watching cost.
- 50 containers at once as tasks of one agent, until all are RUNNING, and beside it the engine alone
  making 50 by such orders and then starting them, four at a time.
- What the agent's memory is with these 50, and how long it takes until all have ended.
- What an idle agent takes with and without the plugin.

It starts an engine of its own, which needs root and Debian's docker.io and busybox-static.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.executor import DockerExecutor

from edgerm_core.client import connect_framework, container, task
from edgerm_core.ids import TaskId
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation
from edgerm_core.testing.processes import Cluster, cluster_in
from edgerm_core.testing.sandboxes import DirectorySandbox

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.plugins.executor_docker.engine import IMAGE, DockerEngine, EngineMissing

ROUNDS = 5
MANY = 50
AT_ONCE = 4
RSS_ROUNDS = 3
SETTLE_S = 2.0


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} (min {low}, max {high})"


# --- one after the other --------------------------------------------------------------------------


def make_launch(number: int, *command: str) -> TaskLaunch:
    implementation = Implementation("docker", args=command, options={"image": IMAGE})
    resources = Resources.parse("mem:16")
    return TaskLaunch(TaskId(number), 1, 0, "bench", implementation, None, resources, {})


async def through_executor(executor: DockerExecutor, base: Path, first: int, count: int) -> float:
    """Return milliseconds per task."""
    began = time.perf_counter()
    for number in range(first, first + count):
        handle = await executor.start(make_launch(number, "true"), DirectorySandbox(base / str(number)))
        result = await executor.wait(handle)
        assert result.ok, result.message
        await executor.destroy(handle)
    return (time.perf_counter() - began) * 1e3 / count


async def order_of(executor: DockerExecutor, engine: DockerEngine, base: Path, number: int) -> Any:
    """Return the order that the executor gives the engine, as the engine has understood it."""
    handle = await executor.start(make_launch(number, "true"), DirectorySandbox(base / str(number)))
    found = engine.inspect(engine.containers()[0]["Id"])
    await executor.wait(handle)
    await executor.destroy(handle)
    config = found["Config"]
    config.pop("Hostname")
    return {**config, "HostConfig": found["HostConfig"]}


def raw_task(engine: DockerEngine, order: Any) -> None:
    made = engine.call("POST", "/containers/create", order)["Id"]
    ends: list[Any] = []

    def wait() -> None:
        ends.append(engine.call("POST", f"/containers/{made}/wait", condition="next-exit"))

    waiter = threading.Thread(target=wait)
    waiter.start()
    engine.call("POST", f"/containers/{made}/start")
    waiter.join()
    assert ends[0]["StatusCode"] == 0, ends
    engine.call("DELETE", f"/containers/{made}")


def through_the_api(engine: DockerEngine, order: Any, count: int) -> float:
    """Return milliseconds per container."""
    began = time.perf_counter()
    for _ in range(count):
        raw_task(engine, order)
    return (time.perf_counter() - began) * 1e3 / count


async def compare(engine: DockerEngine, base: Path, count: int) -> Any:
    """Compare, and return the executor's order."""
    executor = DockerExecutor(DockerConfig(socket=engine.url, state_dir=str(base / "executor")))
    await executor.fingerprint()
    await executor.sweep([])
    order = await order_of(executor, engine, base, 1)
    number = 2
    ours: list[float] = []
    raw: list[float] = []
    for _ in range(ROUNDS + 1):  # The first one warms up.
        raw.append(await anyio.to_thread.run_sync(through_the_api, engine, order, count))
        ours.append(await through_executor(executor, base, number, count))
        number += count
    await executor.close()
    ratios = [mine / bare for mine, bare in zip(ours[1:], raw[1:], strict=True)]
    print(f"make, start, wait for and remove `true`, one after the other, {ROUNDS} rounds of {count}:")
    print(f"  the engine's API     {spread(raw[1:])} ms")
    print(f"  the executor         {spread(ours[1:])} ms")
    print(f"  executor / API       {spread(ratios, '{:.2f}')}")
    return order


# --- many at once -----------------------------------------------------------------------------------


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def many_over_the_api(engine: DockerEngine, order: Any) -> float:
    """Return the seconds until the engine alone has started them.

    All are made before the first is started, and few are started at a time: an engine that does both at
    once takes twice as long.
    """

    def make(_: int) -> str:
        return str(engine.call("POST", "/containers/create", {**order, "Cmd": ["sleep", "600"]})["Id"])

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        began = time.perf_counter()
        made = list(pool.map(make, range(MANY)))
        list(pool.map(lambda one: engine.call("POST", f"/containers/{one}/start"), made))
        elapsed_s = time.perf_counter() - began
        list(pool.map(engine.remove, made))
    return elapsed_s


class Many(NamedTuple):
    """One round: seconds until all are RUNNING and until all have ended, the agent's memory."""

    running_s: float
    ended_s: float
    idle_mib: float
    busy_mib: float


async def many_as_tasks(engine: DockerEngine, cluster: Cluster) -> Many:
    pid = cluster.processes["gw"].pid
    idle_mib = memory_mib(pid)
    draft = task(container(IMAGE, "sleep", "600"), resources="mem:16", kill_grace_s=0, instances=MANY)
    async with connect_framework(cluster.url, name="bench") as framework:
        began = time.perf_counter()
        tasks = await framework.submit_many([draft])
        async with anyio.create_task_group() as group:
            for submitted in tasks:
                group.start_soon(submitted.wait_running)
        running_s = time.perf_counter() - began
        assert len(engine.containers()) == MANY
        await anyio.sleep(SETTLE_S)
        busy_mib = memory_mib(pid)
        began = time.perf_counter()
        await framework.kill(tasks)
        async with anyio.create_task_group() as group:
            for submitted in tasks:
                group.start_soon(submitted.wait)
        ended_s = time.perf_counter() - began
    await anyio.to_thread.run_sync(cluster.wait, "all are gone", lambda: not engine.containers())
    return Many(running_s, ended_s, idle_mib, busy_mib)


def agent_config(engine: DockerEngine) -> str:
    return f'[executor.docker]\nsocket = "{engine.url}"\n'


async def compare_many(engine: DockerEngine, order: Any) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        cluster_in(Path(directory), agent_config(engine)) as site,
    ):
        site.start_master()
        site.start_agent("gw", "--executor", "docker")
        raw: list[float] = []
        found: list[Many] = []
        for _ in range(RSS_ROUNDS):
            raw.append(await anyio.to_thread.run_sync(many_over_the_api, engine, order))
            found.append(await many_as_tasks(engine, site))
    running, ended, idle, busy = (list(column) for column in zip(*found, strict=True))
    ratios = [mine / bare for mine, bare in zip(running, raw, strict=True)]
    print(f"{MANY} containers at once on one agent, {RSS_ROUNDS} rounds:")
    print(f"  the engine's API, until all run                {spread(raw, '{:.2f}')} s")
    print(f"  submitted as tasks, until all are RUNNING      {spread(running, '{:.2f}')} s")
    print(f"  tasks / API                                    {spread(ratios, '{:.2f}')}")
    print(f"  killed without grace, until all have ended     {spread(ended, '{:.2f}')} s")
    print(f"  the agent's resident memory                    {spread(idle)} MiB before")
    print(f"                                                 {spread(busy)} MiB with them")


# --- idle -------------------------------------------------------------------------------------------


async def compare_idle(engine: DockerEngine) -> None:
    sizes: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(RSS_ROUNDS):
        for name, executors in (("without", ("process",)), ("with", ("process", "docker"))):
            options = [option for executor in executors for option in ("--executor", executor)]
            with (
                tempfile.TemporaryDirectory() as directory,
                cluster_in(Path(directory), agent_config(engine)) as site,
            ):
                site.start_master()
                site.start_agent("gw", *options)
                await anyio.sleep(SETTLE_S)
                sizes[name].append(memory_mib(site.processes["gw"].pid))
    print(f"resident memory of an idle agent with the process executor, {RSS_ROUNDS} of each:")
    print(f"  without docker       {spread(sizes['without'])} MiB")
    print(f"  with docker          {spread(sizes['with'])} MiB")


async def main(count: int) -> None:
    try:
        engine = DockerEngine()
    except EngineMissing as missing:
        print(f"left out: {missing}")
        return
    try:
        engine.start()
        with tempfile.TemporaryDirectory() as directory:
            order = await compare(engine, Path(directory), count)
            await compare_many(engine, order)
        await compare_idle(engine)
    finally:
        engine.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 10)
