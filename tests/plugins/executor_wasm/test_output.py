"""What a run prints."""

from __future__ import annotations

import errno
from pathlib import Path

from edgerm_executor_wasm.output import Output

from edgerm_core.limits import MAX_RESULT_BYTES
from edgerm_core.logs import STDERR, STDOUT, LogReader
from edgerm_core.testing.sandboxes import DirectorySandbox


def test_streams_go_to_their_own_rings(tmp_path: Path) -> None:
    output = Output(DirectorySandbox(tmp_path), captures_stdout=False)
    assert output.write_stdout(b"out") == 3
    assert output.write_stderr(b"error") == 5
    output.close()
    output.close()
    assert LogReader(tmp_path / "logs", STDOUT).read(0, 100)[1] == b"out"
    assert LogReader(tmp_path / "logs", STDERR).read(0, 100)[1] == b"error"
    assert output.captured is None


def test_nothing_is_made_before_the_first_byte(tmp_path: Path) -> None:
    output = Output(DirectorySandbox(tmp_path / "sandbox"), captures_stdout=True)
    output.close()
    assert list(tmp_path.iterdir()) == []


def test_capture_is_bounded_and_only_of_standard_output(tmp_path: Path) -> None:
    output = Output(DirectorySandbox(tmp_path, 4096), captures_stdout=True)
    for _ in range(10):
        output.write_stdout(b"x" * 10_000)
        output.write_stderr(b"y" * 10_000)
    output.close()
    assert output.captured is not None
    assert bytes(output.captured) == b"x" * (MAX_RESULT_BYTES + 1)
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 2 * 4096


def test_disk_that_refuses_is_an_error_number(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a directory")
    output = Output(DirectorySandbox(tmp_path), captures_stdout=False)
    assert output.write_stdout(b"out") == -errno.EEXIST
    output.close()
