"""What of a module will be called and with which values, checked before anything runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edgerm_core.errors import SpecError
from edgerm_executor_wasm.options import Options

Number = int | float

NUMBERS: Final = ("i32", "i64", "f32", "f64")
"""Types that can be passed; their place is their number in wasmtime's C interface."""

MAX_NAMED_EXPORTS: Final = 12
"""Exports listed in a sentence about a missing one."""


class Signature(msgspec.Struct, frozen=True):
    """Of a function: the types of its parameters and results, such as `i32`."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


_NOTHING: Final = Signature((), ())
_ALLOC: Final = Signature(("i32",), ("i32",))
_BYTES: Final = Signature(("i32", "i32"), ("i64",))


class Call(msgspec.Struct, frozen=True):
    """What to do with an instance.

    Attributes:
        function: exported function to call.
        signature: of it.
        args: its arguments; empty with `takes_bytes`.
        initialize: call `_initialize` first (a WASI reactor).
        takes_bytes: the argument is `input`, placed in memory by way of `alloc`.
        input: that argument, or else standard input.
        returns_value: the function's return value is the result.
        returns_stdout: what was written to standard output is the result.
    """

    function: str
    signature: Signature
    args: tuple[Number, ...] = ()
    initialize: bool = False
    takes_bytes: bool = False
    input: bytes = b""
    returns_value: bool = False
    returns_stdout: bool = False


def plan_call(
    functions: Mapping[str, Signature],
    has_memory: bool,
    options: Options,
    args: Sequence[str | int | float],
) -> Call:
    """Return what to call.

    Parameters:
        functions: the module's exported functions.
        has_memory: whether it exports `memory`.
        options, args: from the implementation.

    Raises:
        SpecError: if the module has no such function, or the arguments do not fit it.
    """
    stdout = options.result == "stdout"
    if not options.function:
        if functions.get("_start") != _NOTHING:
            raise SpecError(
                "the module exports no `_start`, so it is no command: name the function to call with "
                f"option `function`; it exports {_names(functions)}"
            )
        return Call("_start", _NOTHING, input=options.input_bytes, returns_stdout=stdout)
    name = options.function
    signature = functions.get(name)
    if signature is None:
        raise SpecError(f"the module exports no function `{name}`; it exports {_names(functions)}")
    initialize = functions.get("_initialize") == _NOTHING and name != "_initialize"
    if options.abi == "bytes":
        if args:
            raise SpecError(f'`{name}` with abi = "bytes" takes no args: pass them in option `input`')
        if signature != _BYTES or functions.get("alloc") != _ALLOC or not has_memory:
            raise SpecError(
                f'abi = "bytes" needs a module that exports `memory`, `alloc` {_ALLOC} and `{name}` '
                f"{_BYTES}; here `{name}` is {signature}, and it exports {_names(functions)}"
                + ("" if has_memory else ", but no memory")
            )
        converted: tuple[Number, ...] = ()
    else:
        converted = convert_args(name, signature, args)
    return Call(
        name,
        signature,
        converted,
        initialize=initialize,
        takes_bytes=options.abi == "bytes",
        input=options.input_bytes,
        returns_value=not stdout,
        returns_stdout=stdout,
    )


def _names(functions: Mapping[str, Signature]) -> str:
    names = sorted(functions)
    shown = ", ".join(f"`{name[:64]}`" for name in names[:MAX_NAMED_EXPORTS])
    more = len(names) - MAX_NAMED_EXPORTS
    return (shown + (f" and {more} more" if more > 0 else "")) if names else "no function"


def convert_args(name: str, signature: Signature, args: Sequence[str | int | float]) -> tuple[Number, ...]:
    """Return the arguments as numbers of the parameters' types.

    Integers may be given signed or unsigned, or as text (also `0x10`); floats as numbers or text.

    Raises:
        SpecError: if their number or one of them does not fit, or a type is no number.
    """
    for kind in (*signature.params, *signature.results):
        if kind not in NUMBERS:
            raise SpecError(f"`{name}` is {signature}: only functions of numbers can be called")
    if len(args) != len(signature.params):
        raise SpecError(f"`{name}` is {signature} and takes {len(signature.params)} args, not {len(args)}")
    return tuple(
        _convert(name, place, kind, arg)
        for place, (kind, arg) in enumerate(zip(signature.params, args, strict=True), 1)
    )


def _convert(name: str, place: int, kind: str, arg: str | int | float) -> Number:
    def refused(problem: str) -> SpecError:
        return SpecError(f"arg {place} of `{name}` is {kind}: {str(arg)[:40]!r} {problem}")

    if kind in ("f32", "f64"):
        try:
            return float(arg)
        except (ValueError, OverflowError):
            raise refused("is not a number") from None
    if isinstance(arg, str):
        try:
            value = int(arg, 0)
        except ValueError:
            raise refused("is not an integer") from None
    elif isinstance(arg, float):
        raise refused("is not an integer")
    else:
        value = int(arg)
    bits = int(kind[1:])
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise refused(f"does not fit {bits} bits")
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def format_values(values: Sequence[Number]) -> bytes | None:
    """Return the values a function returned as a result value.

    None: it returns nothing. One number: its text. Several: a JSON array, where what JSON has no
    number for (NaN, infinities) is text.
    """
    if not values:
        return None
    if len(values) == 1:
        return str(values[0]).encode()
    finite = [v if isinstance(v, int) or math.isfinite(v) else str(v) for v in values]
    return json.dumps(finite, separators=(",", ":")).encode()
