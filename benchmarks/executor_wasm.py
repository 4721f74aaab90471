"""Tasks that do nothing, and tasks that sleep, through the wasm executor beside wasmtime itself.

    python benchmarks/executor_wasm.py [--tasks 3000] [--runs 3] [--at-once 1,64] [--idle 1000]

The bare side makes a store with limits, an instance, calls `_start` and closes the store, in a loop of
one thread. The executor's side is start, wait and destroy of a task of the same module. Printed are the
median of the runs with least and most, and the ratio of the medians. Memory is the growth of the
process's resident memory divided by the number of instances, each side in a process of its own; the
executor's instances are inside a sleep, the bare ones have been made and not called.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import wasmtime
from edgerm_executor_wasm.config import WasmConfig
from edgerm_executor_wasm.executor import WasmExecutor

from edgerm_core.ids import TaskId, blob_id
from edgerm_core.interfaces import TaskHandle, TaskLaunch
from edgerm_core.resources import Resources
from edgerm_core.tasks import Implementation
from edgerm_core.testing.sandboxes import DirectorySandbox

NO_OP = '(module (memory (export "memory") 1) (func (export "_start")))'

SLEEPER = """(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 3600000000000))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))))"""

MEM_BYTES = 16 << 20


class Tasks:
    """Starts tasks of one module on an executor of its own."""

    def __init__(self, base: Path, text: str) -> None:
        data = bytes(wasmtime.wat2wasm(text))
        self._blob = blob_id(data)
        self._path = base / "module.wasm"
        self._path.write_bytes(data)
        self._ids = itertools.count(1)
        self._sandbox = DirectorySandbox(base / "sandbox")
        self.executor = WasmExecutor(WasmConfig(cache_dir=str(base / "cache")))

    async def start(self) -> TaskHandle:
        launch = TaskLaunch(
            task_id=TaskId(next(self._ids)),
            attempt=1,
            restarts=0,
            name="bench",
            implementation=Implementation("wasm", self._blob),
            blob_path=self._path,
            resources=Resources.parse("cpus:0.5;mem:16"),
            env={},
        )
        return await self.executor.start(launch, self._sandbox)

    async def run(self) -> None:
        handle = await self.start()
        result = await self.executor.wait(handle)
        assert result.ok, result.message
        await self.executor.destroy(handle)


class Bare:
    """The same with wasmtime alone."""

    def __init__(self, text: str) -> None:
        config = wasmtime.Config()
        config.epoch_interruption = True
        self._engine = wasmtime.Engine(config)
        linker = wasmtime.Linker(self._engine)
        linker.define_wasi()
        self._prepared = linker.instantiate_pre(wasmtime.Module(self._engine, text))

    def make(self) -> tuple[wasmtime.Store, wasmtime.Instance]:
        store = wasmtime.Store(self._engine)
        store.set_limits(memory_size=MEM_BYTES)
        store.set_epoch_deadline(1_000_000)
        store.set_wasi(wasmtime.WasiConfig())
        return store, self._prepared.instantiate(store)

    def run(self) -> None:
        store, instance = self.make()
        function = instance.exports(store)["_start"]
        assert isinstance(function, wasmtime.Func)
        function(store)
        store.close()


def bare_rates(tasks: int, runs: int) -> list[float]:
    bare = Bare(NO_OP)
    rates: list[float] = []
    for number in range(runs + 1):
        began = time.perf_counter()
        for _ in range(tasks):
            bare.run()
        if number:  # The first one warms up.
            rates.append(tasks / (time.perf_counter() - began))
    return rates


async def executor_rates(base: Path, tasks: int, runs: int, at_once: int) -> list[float]:
    source = Tasks(base, NO_OP)
    rates: list[float] = []

    async def work(left: list[int]) -> None:
        while left:
            left.pop()
            await source.run()

    for number in range(runs + 1):
        left = [1] * tasks
        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work, left)
        if number:
            rates.append(tasks / (time.perf_counter() - began))
    await source.executor.close()
    return rates


def resident_kib() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def idle_executor(count: int) -> float:
    with tempfile.TemporaryDirectory() as base:
        source = Tasks(Path(base), SLEEPER)
        warm = await source.start()
        await anyio.sleep(0.2)
        before = resident_kib()
        handles = [await source.start() for _ in range(count)]
        while True:
            if (await source.executor.stats(handles[-1])).mem_bytes:
                break
            await anyio.sleep(0.01)
        each = (resident_kib() - before) / count
        for handle in [warm, *handles]:
            await source.executor.destroy(handle)
        await source.executor.close()
        return each


def idle_bare(count: int) -> float:
    bare = Bare(SLEEPER)
    kept = [bare.make()]
    before = resident_kib()
    kept += [bare.make() for _ in range(count)]
    return (resident_kib() - before) / count


def in_own_process(side: str, count: int) -> float:
    command = [sys.executable, __file__, "--side", side, "--idle", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


def describe(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--at-once", default="1,64")
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--side", choices=["executor", "bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "executor":
        print(anyio.run(idle_executor, options.idle))
        return
    if options.side == "bare":
        print(idle_bare(options.idle))
        return
    bare = bare_rates(options.tasks, options.runs)
    print(f"no-op, bare wasmtime                {describe(bare)}")
    for at_once in map(int, options.at_once.split(",")):
        with tempfile.TemporaryDirectory() as base:
            rates = anyio.run(executor_rates, Path(base), options.tasks, options.runs, at_once)
        ratio = statistics.median(rates) / statistics.median(bare)
        print(f"no-op, executor, {at_once:>4} at once       {describe(rates)}, {ratio:.2f} of bare")
    executor_kib = in_own_process("executor", options.idle)
    bare_kib = in_own_process("bare", options.idle)
    ratio = executor_kib / bare_kib
    print(f"memory, {options.idle} bare instances       {bare_kib:.1f} KiB each")
    print(f"memory, {options.idle} sleeping tasks       {executor_kib:.1f} KiB each, {ratio:.1f} of bare")


if __name__ == "__main__":
    main()
