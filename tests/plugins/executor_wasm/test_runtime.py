"""Engine, modules and workers put together, without an executor around them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from edgerm_executor_wasm.call import plan_call
from edgerm_executor_wasm.options import Options
from edgerm_executor_wasm.output import Output
from edgerm_executor_wasm.run import Run
from edgerm_executor_wasm.runtime import Runtime

from edgerm_core.ids import blob_id
from edgerm_core.testing.sandboxes import DirectorySandbox

PATIENCE_S = 30.0
ADD = bytes(
    wasmtime.wat2wasm(
        """(module
          (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
          (func (export "spin") (loop $again (br $again))))"""
    )
)


class Bench:
    """A runtime, and what it reports from its threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ended: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self.runtime = Runtime(directory / "cache", 1 << 20, self._take)

    def _take(self, runs: list[Run]) -> None:
        for run in runs:
            self.ended.put(run)

    async def submit(self, function: str, *args: int) -> Run:
        path = self.directory / "module"
        path.write_bytes(ADD)
        module = await self.runtime.modules.load(blob_id(ADD), path)
        call = plan_call(module.functions, module.has_memory, Options(function=function), args)
        output = Output(DirectorySandbox(self.directory), False)
        run = self.runtime.make_run(module, call, 1 << 20, None, ["task"], {}, (), output)
        self.runtime.workers.submit(run)
        return run


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.runtime.workers.close()


@pytest.mark.anyio
async def test_module_is_loaded_run_and_its_end_reported(bench: Bench) -> None:
    run = await bench.submit("add", 2, 40)
    assert bench.ended.get(timeout=PATIENCE_S) is run
    assert run.result is not None
    assert run.result.result == b"42"


@pytest.mark.anyio
async def test_endless_run_is_stopped_and_its_end_reported(bench: Bench) -> None:
    endless = await bench.submit("spin")
    short = await bench.submit("add", 1, 1)
    assert bench.ended.get(timeout=PATIENCE_S) is short
    bench.runtime.workers.stop(endless)
    assert bench.ended.get(timeout=PATIENCE_S) is endless
    assert endless.result is not None
    assert not endless.result.ok
    assert endless.cpu_s > 0


@pytest.mark.anyio
async def test_next_runtime_on_the_same_cache_compiles_nothing(bench: Bench) -> None:
    await bench.submit("add", 1, 1)
    assert bench.runtime.modules.compiled == 1
    bench.ended.get(timeout=PATIENCE_S)
    other = Bench(bench.directory)
    try:
        run = await other.submit("add", 3, 4)
        assert other.ended.get(timeout=PATIENCE_S) is run
        assert other.runtime.modules.compiled == 0
        assert run.result is not None
        assert run.result.result == b"7"
    finally:
        other.runtime.workers.close()
