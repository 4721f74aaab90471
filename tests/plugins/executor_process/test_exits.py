"""Exit records to results, with their reasons and sentences."""

from __future__ import annotations

import pytest
from edgerm_executor_process.exits import EXIT_UNKNOWN, ExitRecord, exit_result, start_error

from edgerm_core.tasks import Reason

MIB = 1 << 20


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        (ExitRecord(code=0), Reason.EXITED, ""),
        (ExitRecord(code=3), Reason.EXIT_CODE, "code 3"),
        (ExitRecord(signal=15), Reason.SIGNALED, "15 (SIGTERM)"),
        (ExitRecord(signal=40), Reason.SIGNALED, "40"),
        (ExitRecord(), EXIT_UNKNOWN, "not known"),
        (ExitRecord(signal=9, oom_kills=1), Reason.OUT_OF_MEMORY, "64 MiB"),
        (ExitRecord(code=137, oom_kills=2), Reason.OUT_OF_MEMORY, "64 MiB"),
        (ExitRecord(code=0, oom_kills=2), Reason.EXITED, "2 of its processes"),
        (ExitRecord(code=2, pids_hits=7), Reason.PID_LIMIT, "7 times at its limit of 512"),
        (ExitRecord(code=0, pids_hits=7), Reason.EXITED, "7 times"),
        (ExitRecord(signal=15, pids_hits=7), Reason.SIGNALED, "7 times"),
        (ExitRecord(code=0, lost_bytes=10, lost_why="disk full"), Reason.EXITED, "10 bytes"),
        (ExitRecord(code=0, leftover=1), Reason.EXITED, "stuck"),
    ],
)
def test_reason_and_sentence(record: ExitRecord, reason: str, words: str) -> None:
    result = exit_result(record, 64 * MIB, 512, None, "")
    assert result.ok == (record.code == 0)
    assert result.reason == reason
    assert words in result.message
    assert (result.exit_code, result.signal) == (record.code, record.signal)


def test_kill_for_the_whole_machines_memory_is_a_signal_where_no_limit_was_set() -> None:
    assert exit_result(ExitRecord(signal=9, oom_kills=1), None, 512, None, "").reason == Reason.SIGNALED


def test_result_and_its_note_are_passed_on() -> None:
    result = exit_result(ExitRecord(code=0), None, 1, b"42", "a note")
    assert (result.result, result.message) == (b"42", "a note")


def test_refused_start_keeps_whether_another_try_can_help() -> None:
    assert start_error({"error": "no", "recoverable": True}).recoverable
    assert not start_error({"error": "no"}).recoverable
    assert "no reason" in str(start_error({}))
