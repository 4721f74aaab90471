"""What is no module, and what a module may import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import wasmtime
from edgerm_executor_wasm import module as module_file
from edgerm_executor_wasm.call import Signature
from edgerm_executor_wasm.engine import Host
from edgerm_executor_wasm.module import Module, compile_module

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.plugins.executor_wasm.conftest import Rig


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


def load(host: Host, text: str) -> Module:
    return Module(host, compile_module(host.engine, bytes(wasmtime.wat2wasm(text))))


def refuse(host: Host, data: bytes) -> str:
    with pytest.raises(ExecutorError) as caught:
        Module(host, compile_module(host.engine, data))
    assert caught.value.reason == Reason.BLOB_INVALID
    assert not caught.value.recoverable
    return str(caught.value)


@pytest.mark.parametrize(
    "text", [b"(module)", b"\n  (module $x)", b";; comment\n(module)", b"(; x ;)(module)"]
)
def test_text_is_told_from_binary(host: Host, text: bytes) -> None:
    assert "compile it first (wat2wasm, or edgerm run does it)" in refuse(host, text)


@pytest.mark.parametrize("data", [b"", b"\x7fELF\2\1\1", b"#!/bin/sh"])
def test_other_bytes_are_no_module(host: Host, data: bytes) -> None:
    assert "is not WebAssembly: it begins with" in refuse(host, data)


def test_component_says_what_to_build_instead(host: Host) -> None:
    assert "component; build a core module for wasm32-wasip1" in refuse(host, b"\0asm\x0d\0\1\0")


def test_truncated_module_is_damaged(host: Host, make_rig: Callable[[], Rig]) -> None:
    whole = make_rig().binary("echo")
    for length in range(4, len(whole), 7):
        assert "is " in refuse(host, whole[:length]) if length != 8 else True


def test_module_with_two_memories_is_not_supported(host: Host) -> None:
    assert "multiple memories" in refuse(host, bytes(wasmtime.wat2wasm("(module (memory 1) (memory 1))")))


def test_shared_memory_is_not_supported(host: Host) -> None:
    text = '(module (memory (export "memory") 1 1 shared))'
    assert "is damaged or needs what is not supported" in refuse(host, bytes(wasmtime.wat2wasm(text)))


def test_garbage_collected_types_are_not_supported(host: Host) -> None:
    text = "(module (type $point (struct (field i32))) (func (param (ref $point))))"
    assert "is damaged or needs what is not supported" in refuse(host, bytes(wasmtime.wat2wasm(text)))


def test_missing_import_is_named(host: Host) -> None:
    text = '(module (import "env" "radio_send" (func)))'
    assert "`env::radio_send`" in refuse(host, bytes(wasmtime.wat2wasm(text)))


def test_import_of_another_type_is_named(host: Host) -> None:
    text = '(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32))))'
    assert "`wasi_snapshot_preview1::fd_write`" in refuse(host, bytes(wasmtime.wat2wasm(text)))


def test_a_hundred_thousand_imports_are_refused_in_time(host: Host) -> None:
    text = "(module " + '(import "env" "f" (func))' * 50_000 + ")"
    assert "`env::f`" in refuse(host, bytes(wasmtime.wat2wasm(text)))


def test_too_large_module_is_not_compiled(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_file, "MAX_MODULE_BYTES", 10)
    assert "more than the 10 that are compiled" in refuse(host, b"\0asm\1\0\0\0" + bytes(10))


def test_exports_are_read(host: Host, make_rig: Callable[[], Rig]) -> None:
    numbers = Module(host, compile_module(host.engine, make_rig().binary("numbers")))
    assert numbers.functions["add"] == Signature(("i32", "i32"), ("i32",))
    assert numbers.functions["both"] == Signature(("i32", "f64"), ("i32", "f64"))
    assert (numbers.has_memory, numbers.uses_wasi, numbers.uses_files) == (False, False, False)
    files = Module(host, compile_module(host.engine, make_rig().binary("files")))
    assert (files.has_memory, files.uses_wasi, files.uses_files) == (True, True, True)
    echo = Module(host, compile_module(host.engine, make_rig().binary("echo")))
    assert (echo.has_memory, echo.uses_wasi, echo.uses_files) == (True, True, False)
