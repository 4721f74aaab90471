"""An agent with nothing but CoAP and WASM: its memory, its modules, and how long importing them takes.

    python benchmarks/small_agent.py [--runs 3]

A real agent under a real master, resident before its first task and after it, beside processes that hold
what it cannot do without: Python with a wasmtime engine, the same with an aiocoap client instead of our
layer, each of them also after having run the same module. The median of the runs, with least and most.
Import time is the sum of what `-X importtime` finds.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgerm_core.testing.processes import EDGERM, Cluster, cluster_in

CONFIG = """\
[master]
heartbeat_s = 5.0

[plugins]
enable = ["memory", "transport-coap", "executor-wasm", "sqlite", "first-fit"]
"""

AGENT_CONFIG = """\
[plugins]
enable = ["memory", "transport-coap", "executor-wasm"]
"""

NO_OP = '(module (func (export "run") (result i32) i32.const 7))'

ENGINE = """\
import wasmtime
engine = wasmtime.Engine()
"""

AIOCOAP = """\
import asyncio, aiocoap
loop = asyncio.new_event_loop()
context = loop.run_until_complete(aiocoap.Context.create_client_context(transports=["udp6"]))
"""

TASK = f"""
print("before", flush=True)
input()
store = wasmtime.Store(engine)
module = wasmtime.Module(engine, '''{NO_OP}''')
instance = wasmtime.Instance(store, module, [])
instance.exports(store)["run"](store)
print("after", flush=True)
input()
"""

FLOORS = {"python + engine": ENGINE, "python + engine + aiocoap": ENGINE + AIOCOAP}


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def floor(script: str) -> tuple[float, float]:
    """Return what a process needs that runs the script, before it runs the module and after."""
    with subprocess.Popen(
        [sys.executable, "-c", script + TASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = []
        for word in ("before", "after"):
            assert process.stdout.readline().strip() == word
            found.append(resident_mib(process.pid))
            process.stdin.write("\n")
            process.stdin.flush()
    return found[0], found[1]


@contextmanager
def an_agent(cluster: Cluster, *python: str) -> Iterator[tuple[int, Path]]:
    """Yield the process id of an agent that has registered, and its log."""
    config = cluster.directory / "agent.toml"
    config.write_text(AGENT_CONFIG)
    log_path = cluster.directory / "small.log"
    arguments = ("--master", cluster.url, "--name", "small", "--data-dir", str(cluster.directory / "small"))
    with open(log_path, "wb") as log:
        cluster.processes["small"] = subprocess.Popen(
            [sys.executable, *python, *EDGERM[1:], "--config", str(config), "agent", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=cluster.environment,
        )
    cluster.wait("the agent is there", lambda: cluster.agent("small").get("connected") is True)
    try:
        yield cluster.processes["small"].pid, log_path
    finally:
        cluster.stop("small")


def run_task(cluster: Cluster) -> None:
    source = cluster.directory / "seven.wat"
    source.write_text(NO_OP)
    assert cluster.edgerm("run", "--wasm", str(source), "--function", "run").stdout.strip() == "7"


@contextmanager
def a_cluster() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory() as directory,
        cluster_in(Path(directory), CONFIG, ("coap",)) as cluster,
    ):
        cluster.start_master("--scheduler", "first-fit")
        yield cluster


def agent_memory() -> tuple[float, float]:
    with a_cluster() as cluster, an_agent(cluster) as (pid, _):
        before = resident_mib(pid)
        run_task(cluster)
        return before, resident_mib(pid)


def agent_imports() -> tuple[int, float]:
    """Return how many modules a registered agent has imported, and how long that took."""
    with a_cluster() as cluster, an_agent(cluster, "-X", "importtime") as (_, log):
        spent_us = re.findall(r"^import time: +(\d+) \|", log.read_text(), re.MULTILINE)
    return len(spent_us), sum(map(int, spent_us)) / 1e6


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} MiB (min {min(values):.1f}, max {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    found = {name: [floor(script) for _ in range(runs)] for name, script in FLOORS.items()}
    found["agent"] = [agent_memory() for _ in range(runs)]
    for name, pairs in found.items():
        print(f"{name:<27}before a task {spread([before for before, _ in pairs])}")
        print(f"{'':<27}after one     {spread([after for _, after in pairs])}")
    for name in FLOORS:
        ratios = [
            statistics.median(pair[i] for pair in found["agent"])
            / statistics.median(pair[i] for pair in found[name])
            for i in (0, 1)
        ]
        print(f"agent / {name}: {ratios[0]:.2f} before, {ratios[1]:.2f} after")
    imports = [agent_imports() for _ in range(runs)]
    seconds = [taken for _, taken in imports]
    print(
        f"agent, registered: {imports[0][0]} modules, imported in {statistics.median(seconds):.2f} s "
        f"(min {min(seconds):.2f}, max {max(seconds):.2f})"
    )


if __name__ == "__main__":
    main()
