"""From how a container ended to the result that core reports. No I/O."""

from __future__ import annotations

import signal
from typing import Final

import msgspec

from edgerm_core.tasks import ExitResult, Reason

SIGNAL_BASE: Final = 128
"""Engines, shells and inits report a death by signal n as exit code 128 + n."""

MAX_SIGNAL: Final = 64

HINTS: Final = {
    125: "the engine could not run it",
    126: "a command is there but cannot be run: is it executable, and made for this machine?",
    127: "a command was not found in the image",
}
"""Exit codes that shells, inits and engines give a meaning."""


class ExitRecord(msgspec.Struct, frozen=True):
    """How a container ended.

    Attributes:
        code: its exit code; None: nobody knows.
        out_of_memory: whether the kernel killed it, or part of it, for memory.
        lost: why it ended through no fault of its own; empty: it ended by itself.
        problem: what the engine says went wrong.
    """

    code: int | None = None
    out_of_memory: bool = False
    lost: str = ""
    problem: str = ""


def exit_result(
    record: ExitRecord,
    mem_limit_bytes: int | None,
    result: bytes | None,
    notes: tuple[str, ...] = (),
) -> ExitResult:
    """Return the result with its reason and sentence.

    Parameters:
        mem_limit_bytes: the run's limit, for the sentence; None: it had none.
        result: what the run left in its result file.
        notes: what else is to be told.
    """
    code = record.code
    if record.lost or code is None:
        lost = record.lost or "the engine does not know how it ended"
        return ExitResult(False, Reason.EXECUTOR_UNAVAILABLE, "; ".join((lost, *notes)))
    number = code - SIGNAL_BASE if SIGNAL_BASE < code <= SIGNAL_BASE + MAX_SIGNAL else None
    messages: tuple[str, ...]
    if code == 0:
        reason, messages = Reason.EXITED, ()
        if record.out_of_memory:
            messages = ("one of its processes was killed for wanting too much memory",)
    elif record.out_of_memory:
        reason = Reason.OUT_OF_MEMORY
        limit = "" if mem_limit_bytes is None else f" than its {mem_limit_bytes / (1 << 20):g} MiB"
        messages = (f"killed for wanting more memory{limit}: ask for more mem, or use less",)
    elif number is not None:
        reason = Reason.SIGNALED
        messages = (f"ended by signal {number} ({signal_name(number)})",)
    else:
        reason = Reason.EXIT_CODE
        hint = f": {HINTS[code]}" if code in HINTS else ""
        messages = (f"exited with code {code}{hint}",)
    if record.problem:
        messages = (*messages, f"the engine says: {record.problem}")
    return ExitResult(
        ok=code == 0,
        reason=reason,
        message="; ".join((*messages, *notes)),
        exit_code=code if number is None else None,
        signal=number,
        result=result,
    )


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15; real-time signals by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
