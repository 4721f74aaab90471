"""The part of wasmtime's C interface that wasmtime-py loads but does not wrap: calls that can pause.

A call started here returns a *future*. Polling it runs the guest, on a stack of its own, until it
ends, reaches its epoch deadline, or waits in a host function; the next poll, by any thread, goes on
from there. A paused guest costs a few touched pages and no thread, and deleting its future ends it.
https://docs.wasmtime.dev/c-api/async_8h.html

Calls that only change data keep the interpreter lock: giving it up and getting it back takes
milliseconds while another thread is busy. Calls that run guest code or may block give it up.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref
from pathlib import Path
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime._wasi import CUSTOM_OUTPUTS, custom_call, custom_finalize, to_char_array

from edgerm_executor_wasm.call import NUMBERS, Number

Pointer = Any
"""Of ctypes, whose pointer types mypy cannot follow."""

_keeping_lock = ctypes.PyDLL(ffi.dll._name)


def _bind(name: str, library: ctypes.CDLL = _keeping_lock) -> Callable[..., Any]:
    declared = getattr(ffi.dll, name)
    function = getattr(library, name)
    function.argtypes, function.restype = declared.argtypes, declared.restype
    return function  # type: ignore[no-any-return]


_store_new = _bind("wasmtime_store_new")
_store_context = _bind("wasmtime_store_context")
_store_limiter = _bind("wasmtime_store_limiter")
_store_delete = _bind("wasmtime_store_delete")
_store_delete_with_wasi = _bind("wasmtime_store_delete", ffi.dll)
_set_epoch_deadline = _bind("wasmtime_context_set_epoch_deadline")
_yield_at_deadline = _bind("wasmtime_context_epoch_deadline_async_yield_and_update")
# Declared as returning an error, but the library's function returns nothing, so the value is noise.
_yield_at_deadline.restype = None  # type: ignore[attr-defined]
_set_wasi = _bind("wasmtime_context_set_wasi", ffi.dll)
_instantiate_async = _bind("wasmtime_instance_pre_instantiate_async")
_call_async = _bind("wasmtime_func_call_async")
_export_get = _bind("wasmtime_instance_export_get")
_memory_data = _bind("wasmtime_memory_data")
_memory_size = _bind("wasmtime_memory_data_size")
_caller_export = _bind("wasmtime_caller_export_get")
_caller_context = _bind("wasmtime_caller_context")
_set_argv = _bind("wasi_config_set_argv")
_set_env = _bind("wasi_config_set_env")
_stdout_custom = _bind("wasi_config_set_stdout_custom")
_stderr_custom = _bind("wasi_config_set_stderr_custom")
_stdin_bytes = _bind("wasi_config_set_stdin_bytes")
_define_async_func = _bind("wasmtime_linker_define_async_func")

poll: Final = _bind("wasmtime_call_future_poll", ffi.dll)
"""Run a future's guest until it pauses (False) or has ended (True)."""

_delete_ended_future = _bind("wasmtime_call_future_delete")
_delete_paused_future = _bind("wasmtime_call_future_delete", ffi.dll)

NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()

_SETTERS: Final = ("i32", "i64", "f32", "f64")


class Store:
    """Holds one instance and all that belongs to it. Used by one thread at a time.

    Parameters:
        engine: of the process.
        mem_bytes: limit of its linear memory.
        table_elements: limit of each table.
        tables: limit of the number of tables.
        slice_ticks: epochs after which the guest pauses.
        wasi: consumed; None: the module uses none.
    """

    __slots__ = ("_delete", "_memory", "_pointer", "context", "instance")

    def __init__(
        self,
        engine: wasmtime.Engine,
        mem_bytes: int,
        table_elements: int,
        tables: int,
        slice_ticks: int,
        wasi: wasmtime.WasiConfig | None,
    ) -> None:
        self._pointer = _store_new(engine.ptr(), None, NO_FINALIZER)
        self.context = _store_context(self._pointer)
        self.instance = ffi.wasmtime_instance_t()
        self._memory: Pointer = None
        self._delete = _store_delete if wasi is None else _store_delete_with_wasi
        _store_limiter(self._pointer, mem_bytes, table_elements, 1, tables, 1)
        # At each deadline the guest pauses, and the next one is again so many ticks later.
        _set_epoch_deadline(self.context, slice_ticks)
        _yield_at_deadline(self.context, slice_ticks)
        if wasi is not None:
            _check(_set_wasi(self.context, wasi._consume()))

    def close(self) -> None:
        """Free the instance. Idempotent. No future of this store may be left."""
        if self._pointer is not None:
            self._delete(self._pointer)
            self._pointer = None

    def instantiate(self, prepared: wasmtime.InstancePre) -> Future:
        """Begin to make the instance, which may run its start function."""
        future = Future()
        future.prepared = prepared
        future.pointer = _instantiate_async(
            prepared.ptr(), self.context, byref(self.instance), byref(future.trap), byref(future.error)
        )
        return future

    def call(self, name: str, params: tuple[str, ...], args: tuple[Number, ...], results: int) -> Future:
        """Begin to call an exported function, whose signature has been checked."""
        function = self._export(name)
        assert function is not None, f"{name} was checked to be there"
        future = Future()
        future.args = (ffi.wasmtime_val_t * len(args))()
        for raw, kind, value in zip(future.args, params, args, strict=True):
            raw.kind = NUMBERS.index(kind)
            setattr(raw.of, kind, value)
        future.results = (ffi.wasmtime_val_t * results)()
        future.function = function.of.func
        future.pointer = _call_async(
            self.context,
            byref(future.function),
            future.args,
            len(args),
            future.results,
            results,
            byref(future.trap),
            byref(future.error),
        )
        return future

    def find_memory(self) -> None:
        """Take note of the linear memory exported as `memory`. No call may be under way."""
        found = self._export("memory")
        if found is not None and found.kind == ffi.WASMTIME_EXTERN_MEMORY.value:
            self._memory = found.of.memory

    def memory(self) -> memoryview:
        """Return the memory found, to be used before the guest runs again; empty if there is none."""
        return memoryview(b"") if self._memory is None else _view(self.context, self._memory)

    def mem_bytes(self) -> int:
        """Return the size of the memory found; 0 if there is none.

        Only reads a number of the instance, so that it may be asked while the guest pauses.
        """
        return 0 if self._memory is None else int(_memory_size(self.context, byref(self._memory)))

    def _export(self, name: str) -> Pointer:
        raw = name.encode()
        found = ffi.wasmtime_extern_t()
        there = _export_get(
            self.context, byref(self.instance), ctypes.create_string_buffer(raw), len(raw), byref(found)
        )
        return found if there else None


class Future:
    """A call under way. What it uses until it has ended, and writes its results into, lives here."""

    __slots__ = ("args", "error", "function", "pointer", "prepared", "results", "trap")

    def __init__(self) -> None:
        self.pointer: Pointer = None
        self.trap: Pointer = POINTER(ffi.wasm_trap_t)()
        self.error: Pointer = POINTER(ffi.wasmtime_error_t)()
        self.args: Pointer = None
        self.results: Pointer = None
        self.function: Pointer = None
        self.prepared: wasmtime.InstancePre | None = None

    def delete_ended(self) -> None:
        """Free it after its last poll."""
        _delete_ended_future(self.pointer)
        self.pointer = None

    def delete_paused(self) -> None:
        """Free it and end its guest."""
        _delete_paused_future(self.pointer)
        self.pointer = None

    def values(self) -> list[Number]:
        """Return the function's results.

        Raises:
            wasmtime.Trap: if the guest trapped.
            wasmtime.ExitTrap: if it called `proc_exit`.
            wasmtime.WasmtimeError: if it could not be made.
        """
        if self.error:
            error, self.error = self.error, None
            raise wasmtime.WasmtimeError._from_ptr(error)
        if self.trap:
            trap, self.trap = self.trap, None
            raise wasmtime.Trap._from_ptr(trap)
        return [getattr(raw.of, _SETTERS[raw.kind]) for raw in self.results or ()]


def _check(error: Pointer) -> None:
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)


def _view(context: Pointer, memory: Pointer) -> memoryview:
    size = _memory_size(context, byref(memory))
    if not size:
        return memoryview(b"")
    address = ctypes.addressof(_memory_data(context, byref(memory)).contents)
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


def caller_memory(caller: Pointer) -> memoryview | None:
    """Return the memory of the instance that called a host function; to be used within that call."""
    found: Pointer = ffi.wasmtime_extern_t()
    if not _caller_export(caller, ctypes.create_string_buffer(b"memory"), 6, byref(found)):
        return None
    if found.kind != ffi.WASMTIME_EXTERN_MEMORY.value:
        return None
    return _view(_caller_context(caller), found.of.memory)


Preopen = tuple[Path, str, bool]
"""Directory on the host, its path for the guest, whether the guest may write there."""

Output = Callable[[bytes], int]
"""Takes what a guest printed; returns how many bytes, or a negative errno."""


def make_wasi(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: bytes,
    stdout: Output,
    stderr: Output,
    preopens: Sequence[Preopen],
) -> wasmtime.WasiConfig:
    """Return what a guest may see of the world: nothing but this.

    Raises:
        wasmtime.WasmtimeError: if a directory cannot be opened.
    """
    wasi = wasmtime.WasiConfig()
    pointer = wasi.ptr()
    _set_argv(pointer, len(argv), to_char_array(list(argv)))
    _set_env(pointer, len(env), to_char_array(list(env)), to_char_array(list(env.values())))
    if stdin:
        vector = ffi.bytes_to_capi(stdin)
        _stdin_bytes(pointer, byref(vector))
    _stdout_custom(pointer, custom_call, CUSTOM_OUTPUTS.allocate(stdout), custom_finalize)
    _stderr_custom(pointer, custom_call, CUSTOM_OUTPUTS.allocate(stderr), custom_finalize)
    for directory, path, writable in preopens:
        wasi.preopen_dir(str(directory), path, writable)
    return wasi


AsyncHostFunction = Callable[[Any, Any, Any, int, Any, int, Any, Any], None]
"""(environment, caller, args, their number, results, their number, trap, continuation)"""

async_host_function: Final = ffi.wasmtime_func_async_callback_t
"""Makes a host function that may pause its guest out of an `AsyncHostFunction`. It must be kept."""

continuation: Final = ffi.wasmtime_func_async_continuation_callback_t
"""Makes the function that is asked on each poll whether a paused guest may go on. It must be kept."""


def define_async(
    linker: wasmtime.Linker, module: str, name: str, signature: wasmtime.FuncType, function: Any
) -> None:
    """Define a host function that may pause its guest."""
    raw_module, raw_name = module.encode(), name.encode()
    _check(
        _define_async_func(
            linker.ptr(),
            ctypes.create_string_buffer(raw_module),
            len(raw_module),
            ctypes.create_string_buffer(raw_name),
            len(raw_name),
            signature.ptr(),
            function,
            None,
            NO_FINALIZER,
        )
    )
