"""A module ready to be instantiated, and the sentences for what is none."""

from __future__ import annotations

from typing import Final

import wasmtime

from edgerm_core.errors import ExecutorError
from edgerm_core.limits import MAX_MESSAGE_TEXT
from edgerm_core.tasks import Reason
from edgerm_executor_wasm.call import Signature
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.outcome import root_cause

WASI: Final = "wasi_snapshot_preview1"

MAX_MODULE_BYTES: Final = 64 << 20
"""Compiling takes many times a module's size in memory."""

_MAGIC: Final = b"\0asm"
_COMPONENT: Final = b"\x0d\0\x01\0"


class Module:
    """Compiled, its imports resolved.

    Attributes:
        prepared: to be instantiated any number of times.
        functions: the exported ones.
        has_memory: whether it exports `memory`.
        uses_wasi: whether it imports anything of WASI.
        uses_files: whether it can find or open files.
    """

    def __init__(self, host: Host, compiled: wasmtime.Module) -> None:
        """Resolve the imports.

        Raises:
            ExecutorError: naming the first import that is not there.
        """
        try:
            self.prepared = host.linker.instantiate_pre(compiled)
        except wasmtime.WasmtimeError as error:
            raise _invalid(
                f"imports what edgerm does not provide: {' '.join(str(error).split())}; "
                f"only functions of `{WASI}` are there, without sockets' connections"
            ) from error
        imported = {entry.name for entry in compiled.imports}
        self.uses_wasi = bool(imported)
        self.uses_files = not imported.isdisjoint(("path_open", "fd_prestat_get"))
        self.functions: dict[str, Signature] = {}
        self.has_memory = False
        for export in compiled.exports:
            kind = export.type
            if isinstance(kind, wasmtime.FuncType):
                self.functions[export.name] = Signature(
                    tuple(map(str, kind.params)), tuple(map(str, kind.results))
                )
            elif isinstance(kind, wasmtime.MemoryType) and export.name == "memory":
                self.has_memory = True


def compile_module(engine: wasmtime.Engine, data: bytes) -> wasmtime.Module:
    """Compile. Takes up to minutes for a large module, most of it without the interpreter lock.

    Raises:
        ExecutorError: if `data` is no module, or needs what is not supported; the sentence says which.
    """
    if data.lstrip()[:2] in (b"(m", b"(;", b";;"):
        raise _invalid("is WebAssembly text; compile it first (wat2wasm, or edgerm run does it)")
    if data[:4] != _MAGIC:
        raise _invalid(f"is not WebAssembly: it begins with {data[:8]!r}, not with {_MAGIC!r}")
    if data[4:8] == _COMPONENT:
        raise _invalid("is a WebAssembly component; build a core module for wasm32-wasip1 instead")
    if len(data) > MAX_MODULE_BYTES:
        raise _invalid(f"has {len(data)} bytes, more than the {MAX_MODULE_BYTES} that are compiled")
    try:
        return wasmtime.Module(engine, data)
    except wasmtime.WasmtimeError as error:
        raise _invalid(f"is damaged or needs what is not supported: {root_cause(error)}") from error


def _invalid(problem: str) -> ExecutorError:
    return ExecutorError(f"the module {problem}"[:MAX_MESSAGE_TEXT], reason=Reason.BLOB_INVALID)
