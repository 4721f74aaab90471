"""The sentences about how runs end."""

from __future__ import annotations

import pytest
import wasmtime
from edgerm_executor_wasm import outcome

from edgerm_core.limits import MAX_MESSAGE_TEXT, MAX_RESULT_BYTES
from edgerm_core.tasks import Reason


def test_result_of_the_largest_size_is_taken_and_one_byte_more_is_not() -> None:
    assert outcome.returned(bytes(MAX_RESULT_BYTES)).ok
    refused = outcome.returned(bytes(MAX_RESULT_BYTES + 1))
    assert (refused.ok, refused.reason, refused.result) == (False, outcome.RESULT_INVALID, None)


@pytest.mark.parametrize("code", [1, 255])
def test_exit_code_is_in_the_sentence(code: int) -> None:
    ended = outcome.exited(code, None)
    assert (ended.ok, ended.reason, ended.exit_code) == (False, Reason.EXIT_CODE, code)
    assert str(code) in ended.message


def test_exit_code_zero_is_a_good_end() -> None:
    assert outcome.exited(0, b"x") == outcome.returned(b"x")


def test_trap_names_cause_memory_and_frames() -> None:
    text = '(module (func $inner unreachable) (func (export "f") call $inner))'
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, text), [])
    function = instance.exports(store)["f"]
    assert isinstance(function, wasmtime.Func)
    with pytest.raises(wasmtime.Trap) as caught:
        function(store)
    ended = outcome.trapped(caught.value, 3 << 19, 2 << 20)
    sentence, first, second = ended.message.splitlines()
    assert sentence == (
        "The module trapped: wasm `unreachable` instruction executed. It had 1.5 of 2 MiB of memory."
    )
    assert first.startswith("  at inner (offset 0x")
    assert second.startswith("  at function 1 (offset 0x")
    assert outcome.trapped(caught.value, 0, 0).message.splitlines()[0].endswith("executed.")


def test_endless_function_names_are_cut() -> None:
    name = "n" * 5000
    store = wasmtime.Store()
    text = f'(module (func ${name} unreachable) (func (export "f") call ${name}))'
    function = wasmtime.Instance(store, wasmtime.Module(store.engine, text), []).exports(store)["f"]
    assert isinstance(function, wasmtime.Func)
    with pytest.raises(wasmtime.Trap) as caught:
        function(store)
    assert len(outcome.trapped(caught.value, 0, 0).message) == MAX_MESSAGE_TEXT


def test_other_errors_are_told_with_their_root_cause() -> None:
    ended = outcome.refused(
        wasmtime.WasmtimeError("failed\n\nCaused by:\n    0: first\n    1: the root"), 1 << 20
    )
    assert (ended.reason, ended.message) == (
        Reason.LAUNCH_FAILED,
        "The module could not be run: the root.",
    )
