"""What a child that could not start says becomes a sentence."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from edgerm_executor_process.spawn import StartError, explain, find_program


@pytest.mark.parametrize(
    ("told", "words", "recoverable"),
    [
        (f"exec {errno.ENOEXEC} x", "another processor", False),
        (f"exec {errno.ENOENT} x", "interpreter", False),
        (f"exec {errno.EACCES} x", "permissions", False),
        (f"exec {errno.E2BIG} x", "larger than this kernel allows", False),
        (f"exec {errno.ENOMEM} no memory", "no memory", True),
        (f"work_dir {errno.ENOENT} x", "/work", False),
        (f"user {errno.EPERM} not permitted", "not permitted", False),
        (f"group {errno.ENOSPC} no space", "control group", False),
        (f"io {errno.EMFILE} too many", "too many", True),
        ("", "set up", False),
        ("exec", "cannot be executed", False),
    ],
)
def test_sentence(told: str, words: str, recoverable: bool) -> None:
    error = explain(told.encode(), "prog", "/work")
    assert words in str(error)
    assert error.recoverable == recoverable


def test_command_is_looked_up_in_the_tasks_path(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("")
    with pytest.raises(StartError, match="not found"):
        find_program("tool", {"PATH": str(tmp_path)}, "/")
    program.chmod(0o755)
    assert find_program("tool", {"PATH": f"/nowhere:{tmp_path}"}, "/") == str(program)
    assert find_program("./tool", {"PATH": ""}, str(tmp_path)) == "./tool"
