"""What will be called, and how its arguments become numbers."""

from __future__ import annotations

import json
import math

import pytest
from edgerm_executor_wasm.call import Call, Signature, convert_args, format_values, plan_call
from edgerm_executor_wasm.options import Options
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.errors import SpecError

NOTHING = Signature((), ())
bounded = settings(max_examples=150, deadline=None)


def convert(kind: str, arg: str | int | float) -> int | float:
    [value] = convert_args("f", Signature((kind,), ()), (arg,))
    return value


@bounded
@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_integer_is_taken_signed_or_unsigned_and_as_text(value: int) -> None:
    converted = convert("i64", value)
    assert -(1 << 63) <= converted < 1 << 63
    assert (int(converted) - value) % (1 << 64) == 0
    assert convert("i64", str(value)) == converted
    assert convert("i64", hex(value)) == converted


@bounded
@given(st.integers())
def test_integer_that_needs_more_bits_is_refused(value: int) -> None:
    if -(1 << 31) <= value < 1 << 32:
        assert (int(convert("i32", value)) - value) % (1 << 32) == 0
    else:
        with pytest.raises(SpecError, match=r"arg 1 of `f` is i32: .* does not fit 32 bits"):
            convert("i32", value)


@bounded
@given(st.floats())
def test_float_is_taken_as_number_and_as_text(value: float) -> None:
    for arg in (value, repr(value)):
        converted = convert("f64", arg)
        assert converted == value or (math.isnan(converted) and math.isnan(value))


@pytest.mark.parametrize(
    ("kind", "arg"), [("i32", 1.5), ("i32", 2.0), ("i64", "x"), ("f32", "x"), ("f64", "")]
)
def test_argument_of_another_kind_is_refused(kind: str, arg: str | float) -> None:
    with pytest.raises(SpecError, match=f"arg 1 of `f` is {kind}"):
        convert(kind, arg)


def test_too_large_integer_for_a_float_is_refused() -> None:
    with pytest.raises(SpecError, match="is not a number"):
        convert("f64", 10**400)


@pytest.mark.parametrize("args", [(), (1, 2, 3)])
def test_wrong_number_of_arguments_names_the_signature(args: tuple[int, ...]) -> None:
    signature = Signature(("i32", "i32"), ("i32",))
    with pytest.raises(
        SpecError, match=rf"`f` is \(i32, i32\) -> \(i32\) and takes 2 args, not {len(args)}"
    ):
        convert_args("f", signature, args)


@pytest.mark.parametrize("signature", [Signature(("externref",), ()), Signature((), ("v128",))])
def test_function_of_more_than_numbers_is_refused(signature: Signature) -> None:
    with pytest.raises(SpecError, match="only functions of numbers"):
        convert_args("f", signature, (1,) * len(signature.params))


@bounded
@given(st.lists(st.one_of(st.integers(), st.floats()), max_size=5))
def test_values_become_nothing_a_number_or_a_json_array(values: list[int | float]) -> None:
    result = format_values(values)
    if not values:
        assert result is None
    elif len(values) == 1:
        assert result == str(values[0]).encode()
    else:
        assert result is not None
        decoded = json.loads(result, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert [str(value) for value in decoded] == [str(value) for value in values]


def test_without_a_function_the_command_is_called() -> None:
    call = plan_call({"_start": NOTHING}, True, Options(input="text"), ("-v", 3))
    assert call == Call("_start", NOTHING, input=b"text")


def test_module_that_is_no_command_needs_the_name_of_a_function() -> None:
    with pytest.raises(SpecError, match=r"exports no `_start`.*option `function`; it exports `add`, `mul`"):
        plan_call({"mul": NOTHING, "add": NOTHING}, True, Options(), ())


def test_missing_function_is_named_with_those_that_are_there() -> None:
    functions = {f"f{n:02}": NOTHING for n in range(20)}
    with pytest.raises(SpecError, match=r"exports no function `g`; it exports `f00`.*`f11` and 8 more"):
        plan_call(functions, True, Options(function="g"), ())


def test_module_without_functions_says_so() -> None:
    with pytest.raises(SpecError, match="it exports no function"):
        plan_call({}, False, Options(), ())


def test_reactor_is_initialised_first() -> None:
    functions = {"_initialize": NOTHING, "f": NOTHING}
    assert plan_call(functions, True, Options(function="f"), ()).initialize
    assert not plan_call(functions, True, Options(function="_initialize"), ()).initialize


BYTES = {"alloc": Signature(("i32",), ("i32",)), "f": Signature(("i32", "i32"), ("i64",))}


def test_bytes_go_through_memory() -> None:
    call = plan_call(BYTES, True, Options(function="f", abi="bytes", input=b"xyz"), ())
    assert call.takes_bytes
    assert call.returns_value
    assert call.input == b"xyz"
    assert call.args == ()


@pytest.mark.parametrize(
    ("functions", "has_memory"),
    [
        (BYTES, False),
        ({"f": BYTES["f"]}, True),
        (BYTES | {"f": NOTHING}, True),
        (BYTES | {"alloc": NOTHING}, True),
    ],
)
def test_module_without_the_bytes_abi_is_refused(functions: dict[str, Signature], has_memory: bool) -> None:
    with pytest.raises(SpecError, match="needs a module that exports `memory`, `alloc`"):
        plan_call(functions, has_memory, Options(function="f", abi="bytes"), ())


def test_bytes_take_no_args() -> None:
    with pytest.raises(SpecError, match="option `input`"):
        plan_call(BYTES, True, Options(function="f", abi="bytes"), (1,))
