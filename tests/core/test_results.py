"""Which files are taken for a result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.results import read_result


def test_no_file_is_no_result_and_no_problem(tmp_path: Path) -> None:
    assert read_result(tmp_path / "result") == (None, "")


@pytest.mark.parametrize("size", [0, 1, MAX_RESULT_BYTES])
def test_a_result_up_to_the_limit_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"x" * size)
    assert read_result(path) == (b"x" * size, "")


def test_a_result_beyond_the_limit_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"x" * (MAX_RESULT_BYTES + 1))
    value, note = read_result(path)
    assert value is None
    assert f"larger than {MAX_RESULT_BYTES} bytes" in note


def test_anything_but_a_plain_file_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "link", "fifo"):
        value, note = read_result(tmp_path / name)
        assert value is None
        assert "result file" in note
