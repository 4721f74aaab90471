"""Each way to end has its reason and its sentence."""

from __future__ import annotations

import pytest
from edgerm_executor_docker.exits import ExitRecord, exit_result, signal_name

from edgerm_core.tasks import LOSSES, Reason


def test_good_end() -> None:
    result = exit_result(ExitRecord(0), None, b"42")
    assert (result.ok, result.reason, result.exit_code, result.message) == (True, Reason.EXITED, 0, "")
    assert result.result == b"42"


@pytest.mark.parametrize("code", [1, 3, 77, 125, 126, 127, 128, 255])
def test_exit_code(code: int) -> None:
    result = exit_result(ExitRecord(code), None, None)
    assert not result.ok
    assert (result.reason, result.exit_code, result.signal) == (Reason.EXIT_CODE, code, None)
    assert str(code) in result.message


@pytest.mark.parametrize(("code", "number", "name"), [(137, 9, "SIGKILL"), (143, 15, "SIGTERM")])
def test_death_by_a_signal(code: int, number: int, name: str) -> None:
    result = exit_result(ExitRecord(code), 1 << 20, None)
    assert (result.reason, result.exit_code, result.signal) == (Reason.SIGNALED, None, number)
    assert name in result.message


def test_too_much_memory_names_the_limit() -> None:
    result = exit_result(ExitRecord(137, out_of_memory=True), 32 << 20, None)
    assert result.reason == Reason.OUT_OF_MEMORY
    assert "32 MiB" in result.message


def test_child_that_wanted_too_much_memory_does_not_spoil_a_good_end() -> None:
    result = exit_result(ExitRecord(0, out_of_memory=True), 32 << 20, None)
    assert result.ok
    assert "memory" in result.message


@pytest.mark.parametrize("record", [ExitRecord(lost="the engine restarted"), ExitRecord()])
def test_loss_is_no_fault_of_the_task(record: ExitRecord) -> None:
    result = exit_result(record, None, None)
    assert not result.ok
    assert result.reason in LOSSES
    assert result.message


def test_notes_and_the_engines_words_follow() -> None:
    result = exit_result(ExitRecord(1, problem="disk on fire"), None, None, ("5 bytes lost",))
    assert result.message == "exited with code 1; the engine says: disk on fire; 5 bytes lost"


def test_signals_have_names() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(40) == "SIG40"
