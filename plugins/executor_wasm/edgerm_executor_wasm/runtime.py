"""All that needs wasmtime, put together once the first task arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgerm_executor_wasm.call import Call
from edgerm_executor_wasm.compile_cache import CompileCache
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.module import Module
from edgerm_executor_wasm.modules import Modules
from edgerm_executor_wasm.native import Preopen
from edgerm_executor_wasm.output import Output
from edgerm_executor_wasm.run import Run
from edgerm_executor_wasm.workers import Workers


class Runtime:
    """Engine, modules and worker threads of one executor.

    Attributes:
        modules: those in memory.
        workers: their threads start here.
    """

    def __init__(self, cache_dir: Path, cache_bytes: int, on_end: Callable[[list[Run]], None]) -> None:
        self._host = Host()
        self.modules = Modules(self._host, CompileCache(cache_dir, cache_bytes, self._host))
        self.workers = Workers(self._host, on_end)

    def make_run(
        self,
        module: Module,
        call: Call,
        mem_limit_bytes: int,
        cpu_share: float | None,
        argv: Sequence[str],
        env: dict[str, str],
        preopens: Sequence[Preopen],
        output: Output,
    ) -> Run:
        """Return a run; parameters as in `Run`."""
        return Run(self._host, module, call, mem_limit_bytes, cpu_share, argv, env, preopens, output)
