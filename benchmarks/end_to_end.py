"""The whole path: framework -> master (durable) -> agent -> wasmtime -> master -> framework.

Starts a real master and agents on loopback and measures, as a framework sees it:

    tasks per second    2,000 no-op WASM tasks submitted at once, until the last end is known
    submit to RUNNING   one at a time on the idle cluster
    resident memory     of an idle master and of agents with different executors

Compared in the same run with what the path cannot do without: compiling nothing, one thread that
makes a wasmtime store and instance and calls it, and one durable SQLite commit per task.

    python benchmarks/end_to_end.py [TASKS]
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import anyio
import wasmtime

from edgerm_core.client import Framework, connect_framework, connect_operator, task, wasm
from edgerm_core.tasks import TaskState

NOOP = '(module (memory 1) (func (export "_start")))'
WARM_UP = 200
ROUNDS = 3
SINGLES = 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(directory: Path, *arguments: str) -> Iterator[int]:
    """Run an edgerm daemon; yields its pid."""
    with open(directory / f"{arguments[0]}.log", "ab") as log:
        child = subprocess.Popen([sys.executable, "-m", "edgerm_core.cli.main", *arguments], stderr=log)
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait()


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def spread(values: list[float], form: str = "{:.0f}") -> str:
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} (min {low}, max {high})"


async def batch(framework: Framework, module: bytes, count: int) -> float:
    """Run no-op tasks all at once and return how many per second."""
    drafts = [task(wasm(module), name="noop", cpus=0.001, mem=0.1) for _ in range(count)]
    began = time.perf_counter()
    tasks = await framework.submit_many(drafts)
    async with anyio.create_task_group() as group:
        for submitted in tasks:
            group.start_soon(submitted.wait)
    elapsed_s = time.perf_counter() - began
    assert all(submitted.state is TaskState.FINISHED for submitted in tasks)
    return count / elapsed_s


async def singles(framework: Framework, module: bytes) -> tuple[list[float], list[float]]:
    """Run tasks one after the other; return milliseconds to RUNNING and to the end."""
    running: list[float] = []
    ended: list[float] = []
    for _ in range(SINGLES):
        began = time.perf_counter()
        submitted = await framework.submit(wasm(module), name="noop", cpus=0.001, mem=0.1)
        await submitted.wait_running()
        running.append((time.perf_counter() - began) * 1e3)
        await submitted.wait()
        ended.append((time.perf_counter() - began) * 1e3)
    return sorted(running), sorted(ended)


def bare_wasm(module: bytes, count: int) -> float:
    """Instantiate and call the module in one thread; return calls per second."""
    engine = wasmtime.Engine()
    compiled = wasmtime.Module(engine, module)
    began = time.perf_counter()
    for _ in range(count):
        store = wasmtime.Store(engine)
        start = wasmtime.Instance(store, compiled, []).exports(store)["_start"]
        assert isinstance(start, wasmtime.Func)
        start(store)
        store.close()
    return count / (time.perf_counter() - began)


def bare_commits(directory: Path, count: int) -> float:
    """Commit one row at a time, durably; return commits per second."""
    database = sqlite3.connect(directory / "bare.db", isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("create table row (id integer primary key, value blob)")
    began = time.perf_counter()
    for number in range(count):
        database.execute("insert into row values (?, ?)", (number, b"x" * 300))
    elapsed_s = time.perf_counter() - began
    database.close()
    return count / elapsed_s


async def wait_for_agents(url: str, count: int) -> None:
    async with connect_operator(url, connect_timeout_s=30) as operator:
        while sum(row["connected"] for row in (await operator.query("agents")).rows) < count:  # noqa: ASYNC110
            await anyio.sleep(0.05)


def percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


async def measure(count: int, directory: Path, say: Callable[[str], None]) -> None:
    module = bytes(wasmtime.wat2wasm(NOOP))
    url = f"ws://127.0.0.1:{free_port()}"
    agent = ("agent", "--master", url, "--data-dir")
    with (
        process(directory, "master", "--listen", url, "--data-dir", str(directory / "m")) as master,
        process(directory, *agent, str(directory / "w"), "--name", "w", "--executor", "wasm") as wasm_agent,
    ):
        with process(
            directory, *agent, str(directory / "p"), "--name", "p", "--executor", "process"
        ) as other:
            await wait_for_agents(url, 2)
            await anyio.sleep(2)
            say(f"idle master                    {resident_mib(master):6.1f} MiB resident")
            say(f"agent, ws + process            {resident_mib(other):6.1f} MiB")
            say(f"agent, ws + wasm, before tasks {resident_mib(wasm_agent):6.1f} MiB")
        async with connect_framework(url, name="bench") as framework:
            await batch(framework, module, WARM_UP)
            say(f"agent, ws + wasm, after tasks  {resident_mib(wasm_agent):6.1f} MiB")
            rates, wasm_rates, commit_rates = [], [], []
            for round_number in range(ROUNDS):
                rates.append(await batch(framework, module, count))
                wasm_rates.append(bare_wasm(module, count))
                scratch = directory / str(round_number)
                scratch.mkdir()
                commit_rates.append(bare_commits(scratch, count))
            running, ended = await singles(framework, module)
            await framework.teardown()
    say(f"{count} no-op WASM tasks           {spread(rates)} tasks/s, median of {ROUNDS}")
    say(f"bare store + instance + call   {spread(wasm_rates)} calls/s")
    say(f"bare commit per row            {spread(commit_rates)} commits/s")
    ratios = [rate / bare for rate, bare in zip(rates, wasm_rates, strict=True)]
    say(f"tasks per bare call            {spread(ratios, '{:.2f}')}")
    for what, values in (("submit to RUNNING", running), ("submit to the end", ended)):
        p50, p99 = (percentile(values, part) for part in (0.5, 0.99))
        say(f"{what}              p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, wasmtime {version('wasmtime')}")
    with tempfile.TemporaryDirectory(prefix="edgerm-bench-") as directory:
        anyio.run(measure, count, Path(directory), print)


if __name__ == "__main__":
    main()
