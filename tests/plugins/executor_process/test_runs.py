"""A run's output and records on disk."""

from __future__ import annotations

import os
from pathlib import Path

from edgerm_executor_process.runs import DRAIN_BYTES, Output, read_exit

from edgerm_core.logs import STDOUT, LogReader, LogWriter


def test_output_goes_from_the_fifo_to_the_ring(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "fifo"), LogWriter(tmp_path / "logs", STDOUT, 4096))
    task_end = output.create(None)
    assert output.read() == 0
    os.write(task_end, b"hello")
    assert output.read() == 5
    os.write(task_end, b" world")
    os.close(task_end)
    output.finish()
    assert LogReader(tmp_path / "logs", STDOUT).read(0, 100) == (0, b"hello world")
    assert not (tmp_path / "fifo").exists()


def test_writer_survives_a_keeper_that_is_gone(tmp_path: Path) -> None:
    first = Output(str(tmp_path / "fifo"), LogWriter(tmp_path / "logs", STDOUT, 4096))
    task_end = first.create(None)
    assert first.reader is not None
    os.close(first.reader)
    os.write(task_end, b"written while nobody reads")
    second = Output(str(tmp_path / "fifo"), LogWriter(tmp_path / "logs", STDOUT, 4096))
    second.open()
    assert second.read() == 26
    os.close(task_end)
    second.finish()


def test_log_that_cannot_be_written_is_counted_as_lost(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the directory should be")
    output = Output(str(tmp_path / "fifo"), LogWriter(tmp_path / "logs", STDOUT, 4096))
    task_end = output.create(None)
    os.write(task_end, b"x" * 100)
    assert output.read() == 100
    assert output.lost_bytes == 100
    assert output.lost_why
    os.close(task_end)
    output.finish()


def test_escaped_writer_cannot_hold_up_the_end(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "fifo"), LogWriter(tmp_path / "logs", STDOUT, 4096))
    task_end = output.create(None)
    os.write(task_end, b"x" * 1000)
    output.finish()  # Although somebody still holds the other end.
    assert LogReader(tmp_path / "logs", STDOUT).bounds()[1] == 1000 < DRAIN_BYTES
    os.close(task_end)


def test_damaged_exit_record_is_no_record(tmp_path: Path) -> None:
    key = str(tmp_path / "t1.1.0")
    assert read_exit(key) is None
    for text in ("", "{", "[]", "\x00"):
        Path(f"{key}.exit").write_text(text)
        assert read_exit(key) is None
    Path(f"{key}.exit").write_text('{"code": 3}')
    assert read_exit(key) == {"code": 3}
