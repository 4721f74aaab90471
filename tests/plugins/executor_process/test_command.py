"""Options and command lines."""

from __future__ import annotations

import pytest
from edgerm_executor_process.command import PROGRAM_NAME, ProcessOptions, build_argv, read_options

from edgerm_core.errors import SpecError
from edgerm_core.ids import BlobId
from edgerm_core.tasks import Implementation


def test_args_are_the_command() -> None:
    argv = build_argv("t", Implementation("process", args=("echo", 1, 2.5)), ProcessOptions())
    assert argv == ["echo", "1", "2.5"]


def test_shell_text_goes_to_the_shell() -> None:
    argv = build_argv("t", Implementation("process"), ProcessOptions(shell="a | b"))
    assert argv == ["/bin/sh", "-c", "a | b"]


def test_blob_is_the_program_and_args_follow() -> None:
    argv = build_argv(
        "t", Implementation("process", blob=BlobId(bytes(32)), args=("-v",)), ProcessOptions()
    )
    assert argv == [f"./{PROGRAM_NAME}", "-v"]


def test_shell_beside_a_blob_is_refused() -> None:
    with pytest.raises(SpecError, match="not both"):
        build_argv("t", Implementation("process", blob=BlobId(bytes(32))), ProcessOptions(shell="true"))


def test_unknown_option_is_named_with_those_that_exist() -> None:
    with pytest.raises(SpecError, match=r"task t: .*colour.*known are shell and pids_limit"):
        read_options("t", Implementation("process", options={"colour": "blue"}))


@pytest.mark.parametrize("value", [0, -1, 1_000_001])
def test_pids_limit_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(SpecError, match="pids_limit must be 1 to 1000000"):
        read_options("t", Implementation("process", options={"pids_limit": value}))
