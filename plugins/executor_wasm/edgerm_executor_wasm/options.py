"""The options of a `wasm` implementation, as the spec wrote them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgerm_core.errors import SpecError


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a spec may say in `implementation.options`.

    Attributes:
        function: exported function to call; empty: `_start`, a WASI command.
        abi: how `function` takes its arguments: `numbers`: the implementation's args, converted to
            its parameters; `bytes`: `input` in the module's memory, see README.
        input: bytes (text is sent as UTF-8): standard input, or with `abi = "bytes"` the argument.
        result: what becomes the result value: `value`: what the function returns; `stdout`: all
            that was written to standard output. Empty: `value` with a function, else nothing.
    """

    function: str = ""
    abi: Literal["numbers", "bytes"] = "numbers"
    input: object = b""
    result: Literal["", "value", "stdout"] = ""

    @property
    def input_bytes(self) -> bytes:
        """`input` as bytes."""
        if isinstance(self.input, str):
            return self.input.encode()
        assert isinstance(self.input, bytes)
        return self.input


def parse_options(raw: dict[str, Any]) -> Options:
    """Read the options.

    Raises:
        SpecError: naming the option and what was expected.
    """
    try:
        options = msgspec.convert(raw, Options)
    except msgspec.ValidationError as error:
        known = ", ".join(Options.__struct_fields__)
        raise SpecError(f"wasm options: {error} (known options: {known})") from None
    if isinstance(options.input, bytearray | memoryview):
        options = msgspec.structs.replace(options, input=bytes(options.input))
    if not isinstance(options.input, bytes | str):
        raise SpecError(f"wasm options: input must be bytes or text, not {type(options.input).__name__}")
    if options.abi == "bytes" and not options.function:
        raise SpecError('wasm options: abi = "bytes" needs the name of a function')
    if options.result == "value" and not options.function:
        raise SpecError('wasm options: result = "value" needs the name of a function')
    return options
