"""Registers the WASM executor."""

from __future__ import annotations

from collections.abc import Iterable

from edgerm_core.hookspecs import hookimpl
from edgerm_core.interfaces import Executor, Provider
from edgerm_executor_wasm.config import WasmConfig


def _create(config: WasmConfig) -> Executor:
    from edgerm_executor_wasm.executor import WasmExecutor

    return WasmExecutor(config)


@hookimpl
def executors() -> Iterable[Provider[Executor]]:
    return [Provider("wasm", _create, WasmConfig, summary="WebAssembly modules on wasmtime, in the agent")]
