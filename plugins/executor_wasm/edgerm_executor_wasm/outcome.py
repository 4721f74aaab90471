"""How a run ended, as an ExitResult with a sentence for a person."""

from __future__ import annotations

import re
from typing import Final

import wasmtime

from edgerm_core.limits import MAX_MESSAGE_TEXT, MAX_RESULT_BYTES
from edgerm_core.tasks import ExitResult, Reason

RESULT_INVALID: Final = "result-invalid"
"""Reason of a run whose result value is too large or points outside its memory."""

MAX_FRAMES: Final = 20
"""Frames of a trap's backtrace that are reported, innermost first."""

STOPPED: Final = ExitResult(
    ok=False, reason=Reason.KILLED_BY_REQUEST, message="The module was stopped on request."
)


class ResultError(Exception):
    """The guest's result value cannot be used. `str(error)` is the sentence."""


def returned(result: bytes | None) -> ExitResult:
    """The function returned, or the command came to its end."""
    if result is not None and len(result) > MAX_RESULT_BYTES:
        return failed_result(f"The result of {len(result)} bytes exceeds the limit of {MAX_RESULT_BYTES}.")
    return ExitResult(ok=True, reason=Reason.EXITED, exit_code=0, result=result)


def exited(code: int, result: bytes | None) -> ExitResult:
    """The guest called `proc_exit`."""
    if code == 0:
        return returned(result)
    return ExitResult(
        ok=False, reason=Reason.EXIT_CODE, message=f"The module exited with code {code}.", exit_code=code
    )


def failed_result(sentence: str) -> ExitResult:
    """The guest ended well, but its result value cannot be used."""
    return ExitResult(ok=False, reason=RESULT_INVALID, message=sentence)


def trapped(trap: wasmtime.Trap, mem_bytes: int, mem_limit_bytes: int) -> ExitResult:
    """The guest trapped.

    Parameters:
        mem_bytes: the memory it had; 0: not known.
        mem_limit_bytes: the most it could get.
    """
    text = trap.message
    cause = text.rpartition("wasm trap: ")[2].strip() or text.strip()
    sentence = f"The module trapped: {cause}."
    if mem_bytes:
        sentence += f" It had {_mib(mem_bytes)} of {_mib(mem_limit_bytes)} MiB of memory."
    lines = [sentence]
    for frame in trap.frames[:MAX_FRAMES]:
        name = frame.func_name or f"function {frame.func_index}"
        # The frame that overflowed the stack has no offset (all bits set).
        offset = frame.module_offset
        lines.append(f"  at {name}" + (f" (offset 0x{offset:x})" if offset < 1 << 32 else ""))
    return ExitResult(ok=False, reason=Reason.TRAP, message="\n".join(lines)[:MAX_MESSAGE_TEXT])


def refused(error: wasmtime.WasmtimeError, mem_limit_bytes: int) -> ExitResult:
    """wasmtime could not make the instance or call the function."""
    cause = root_cause(error)
    if "exceeds memory limits" in cause:
        return ExitResult(
            ok=False,
            reason=Reason.OUT_OF_MEMORY,
            message=f"The module needs more memory to start than its limit of {_mib(mem_limit_bytes)} MiB "
            f"({cause}): ask for more `mem`.",
        )
    return ExitResult(
        ok=False,
        reason=Reason.LAUNCH_FAILED,
        message=f"The module could not be run: {cause}."[:MAX_MESSAGE_TEXT],
    )


def root_cause(error: wasmtime.WasmtimeError) -> str:
    """Return the last line of wasmtime's chain of causes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Several causes are numbered.
    return re.sub(r"^\d+: ", "", lines[-1]).rstrip(".") if lines else "unknown error"


def _mib(amount_bytes: int) -> str:
    return f"{amount_bytes / (1 << 20):.2f}".rstrip("0").rstrip(".")
