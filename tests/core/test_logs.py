"""Log rings: bounded, readable by offset, taken up again by another writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.logs import STDERR, STDOUT, LogReader, LogWriter


def read_all(directory: Path, stream: str = STDOUT, offset: int = 0) -> tuple[int, bytes]:
    """Return where the data starts and all of it."""
    reader = LogReader(directory, stream)
    first, data = reader.read(offset, 1 << 20)
    at = first + len(data)
    while True:
        start, more = reader.read(at, 1 << 20)
        if not more:
            return first, data
        assert start == at
        data += more
        at += len(more)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "logs", STDOUT, 1000)
    writer.write(b"hello ")
    writer.write(b"world")
    assert read_all(tmp_path / "logs") == (0, b"hello world")
    assert LogReader(tmp_path / "logs", STDOUT).bounds() == (0, 11)
    writer.close()


def test_directory_appears_with_the_first_byte(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "logs", STDOUT, 1000)
    assert not (tmp_path / "logs").exists()
    assert LogReader(tmp_path / "logs", STDOUT).bounds() == (0, 0)
    assert LogReader(tmp_path / "logs", STDOUT).read(0, 10) == (0, b"")
    writer.write(b"")
    assert not (tmp_path / "logs").exists()


def test_streams_are_apart(tmp_path: Path) -> None:
    for stream in (STDOUT, STDERR):
        writer = LogWriter(tmp_path, stream, 1000)
        writer.write(stream.encode())
        writer.close()
    assert read_all(tmp_path, STDOUT) == (0, b"stdout")
    assert read_all(tmp_path, STDERR) == (0, b"stderr")


def test_full_ring_drops_the_oldest_and_offsets_go_on(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, STDOUT, 100)
    for number in range(100):
        writer.write(b"%09d\n" % number)
    writer.close()
    first, end = LogReader(tmp_path, STDOUT).bounds()
    assert end == 1000
    assert 50 <= end - first <= 100
    assert read_all(tmp_path) == (first, b"".join(b"%09d\n" % n for n in range(first // 10, 100)))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100


def test_one_write_larger_than_the_ring_keeps_its_end(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, STDOUT, 10)
    writer.write(bytes(range(200)))
    writer.close()
    first, data = read_all(tmp_path)
    assert data == bytes(range(first, 200))


def test_another_writer_goes_on_where_the_last_stopped(tmp_path: Path) -> None:
    for number in range(7):
        writer = LogWriter(tmp_path, STDOUT, 20)
        writer.write(b"%d------" % number)
        writer.close()
    first, data = read_all(tmp_path)
    everything = b"".join(b"%d------" % number for number in range(7))
    assert first + len(data) == len(everything)
    assert data == everything[first:]


def test_reader_that_comes_late_is_told_where_the_data_starts(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, STDOUT, 100)
    writer.write(bytes(1000))
    writer.close()
    first, _ = LogReader(tmp_path, STDOUT).bounds()
    assert LogReader(tmp_path, STDOUT).read(3, 10) == (first, bytes(10))


def test_reading_at_the_end_waits_there(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, STDOUT, 100)
    writer.write(b"abc")
    reader = LogReader(tmp_path, STDOUT)
    assert reader.read(3, 10) == (3, b"")
    writer.write(b"def")
    assert reader.read(3, 10) == (3, b"def")
    writer.close()


def test_foreign_files_in_the_directory_are_ignored(tmp_path: Path) -> None:
    for name in ("stdout", "stdout.x", "stdout.1.gz", "note"):
        (tmp_path / name).write_text("no")
    writer = LogWriter(tmp_path, STDOUT, 100)
    writer.write(b"yes")
    writer.close()
    assert read_all(tmp_path) == (0, b"yes")


def test_disk_that_refuses_keeps_what_was_written(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the kernel takes a part, then refuses."""
    program = (
        "import resource, signal, sys\n"
        "from edgerm_core.logs import LogWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = LogWriter(sys.argv[1], 'stdout', 1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    writer.write(b'x' * 150)\n"
        "except OSError:\n"
        "    pass\n"
        "else:\n"
        "    raise SystemExit('nobody refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "writer.write(b'y' * 20)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert read_all(tmp_path) == (0, b"x" * 100 + b"y" * 20)


def test_import_costs_a_small_process_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "import edgerm_core.logs\n"
        "print(sorted({'pathlib', 'typing', 're', 'msgspec', 'anyio'} & set(sys.modules)))\n"
    )
    place = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": place},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(2, 64), st.integers(0, 29))
def test_ring_always_holds_the_end_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], limit: int, reopen_at: int
) -> None:
    directory = tmp_path_factory.mktemp("ring")
    writer = LogWriter(directory, STDOUT, limit)
    for number, piece in enumerate(pieces):
        if number == reopen_at:
            writer.close()
            writer = LogWriter(directory, STDOUT, limit)
        writer.write(piece)
        assert sum(path.stat().st_size for path in directory.iterdir()) <= limit
    writer.close()
    everything = b"".join(pieces)
    first, data = read_all(directory)
    assert data == everything[first:]
    assert len(data) >= min(len(everything), limit // 2)
