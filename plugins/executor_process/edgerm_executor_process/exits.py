"""From the keeper's exit record to the result that core reports. No I/O."""

from __future__ import annotations

import signal
from typing import Final

import msgspec

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import ExitResult, Reason

EXIT_UNKNOWN: Final = "exit-unknown"
"""The executor's own reason: the process ended while nobody was there to see how."""


class ExitRecord(msgspec.Struct, frozen=True):
    """What the keeper writes down when a run has ended.

    Attributes:
        code, signal: how the main process ended; both None: nobody saw it.
        oom_kills: processes of the run that the kernel killed for memory.
        pids_hits: forks refused because of the limit of processes.
        cpu_s, peak_bytes: what the run used in all; None where the kernel does not count.
        lost_bytes, lost_why: output that could not be written to the log, and why.
        leftover: processes that could not even be killed (stuck in the kernel).
    """

    code: int | None = None
    signal: int | None = None
    oom_kills: int = 0
    pids_hits: int = 0
    cpu_s: float | None = None
    peak_bytes: int | None = None
    lost_bytes: int = 0
    lost_why: str = ""
    leftover: int = 0


def exit_result(
    record: ExitRecord, mem_limit_bytes: int | None, pids_limit: int, result: bytes | None, result_note: str
) -> ExitResult:
    """Return the result with its reason and sentence.

    Parameters:
        mem_limit_bytes, pids_limit: the run's limits, for the sentences.
        result: what the run left in its result file.
        result_note: why there is no result although there was a file; empty: nothing to say.
    """
    ok = record.code == 0
    reason: str
    if ok:
        reason, message = Reason.EXITED, ""
    elif record.oom_kills and mem_limit_bytes is not None:
        reason = Reason.OUT_OF_MEMORY
        message = (
            f"killed for wanting more memory than its {mem_limit_bytes / (1 << 20):g} MiB: "
            f"ask for more mem, or use less"
        )
    elif record.code is not None:
        reason, message = Reason.EXIT_CODE, f"exited with code {record.code}"
    elif record.signal is not None:
        reason, message = Reason.SIGNALED, f"ended by signal {record.signal} ({signal_name(record.signal)})"
    else:
        reason = EXIT_UNKNOWN
        message = (
            "ended while the keeper that watches over its process had been killed, so its exit code is "
            "not known"
        )
    if record.pids_hits and not ok and reason == Reason.EXIT_CODE:
        reason = Reason.PID_LIMIT
    notes = [message] if message else []
    if record.pids_hits:
        notes.append(
            f"it was refused new processes {record.pids_hits} times at its limit of {pids_limit} "
            f"(option pids_limit)"
        )
    if record.oom_kills and ok:
        notes.append(f"{record.oom_kills} of its processes were killed for wanting too much memory")
    if record.lost_bytes:
        notes.append(f"{record.lost_bytes} bytes of its output could not be kept: {record.lost_why}")
    if record.leftover:
        notes.append(f"{record.leftover} of its processes are stuck in the kernel and could not be killed")
    if result_note:
        notes.append(result_note)
    return ExitResult(
        ok=ok,
        reason=reason,
        message="; ".join(notes),
        exit_code=record.code,
        signal=record.signal,
        result=result,
    )


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15; real-time signals by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def start_error(reply: dict[str, object]) -> ExecutorError:
    """Return the error that the keeper's refusal of a start stands for."""
    return ExecutorError(
        str(reply.get("error", "the keeper gave no reason")),
        # What may have begun must not begin again with the same fence: it is lost, and tried anew.
        reason=Reason.AGENT_RESTARTED if reply.get("lost") is True else Reason.LAUNCH_FAILED,
        recoverable=reply.get("recoverable") is True,
    )
