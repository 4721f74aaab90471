"""/proc, read right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from edgerm_executor_process.processes import Stat, boot_id, family, is_same, read_stat

MARK = f"MARK=of {os.getpid()}"
"""Tests beside this one have children too."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    name, _, value = MARK.partition("=")
    process = subprocess.Popen(["sleep", "600"], start_new_session=True, env={name: value})
    yield process
    process.kill()
    process.wait()


def test_own_stat() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
    assert stat.group == os.getpgrp()
    assert stat.session == os.getsid(0)
    assert stat.cpu_s >= 0
    assert stat.mem_bytes > 1 << 20


def test_name_with_spaces_and_parentheses_shifts_nothing() -> None:
    fields = (
        [b"S", b"1", b"2", b"3"]
        + [b"0"] * 7
        + [b"100", b"100", b"0", b"0"]
        + [b"0"] * 4
        + [b"77", b"0", b"5"]
    )
    stat = Stat(b"9 (a) R (b c)) " + b" ".join(fields))
    assert (stat.state, stat.parent, stat.group, stat.session, stat.start) == ("S", 1, 2, 3, 77)
    assert stat.cpu_s == 200 / os.sysconf("SC_CLK_TCK")


def test_process_is_named_by_pid_and_start(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert is_same(child.pid, stat.start)
    assert not is_same(child.pid, stat.start + 1)
    child.kill()
    deadline = time.monotonic() + 30
    while is_same(child.pid, stat.start) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not is_same(child.pid, stat.start), "a zombie is not alive"


def test_no_such_process_has_no_stat() -> None:
    assert read_stat(1 << 30) is None


def test_family_is_found_by_session_and_by_mark(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert child.pid in family(child.pid, stat.start, b"NO=mark")
    assert family(-1, 0, b"NO=mark") == []
    deadline = time.monotonic() + 30
    while family(-1, 0, MARK.encode()) != [child.pid] and time.monotonic() < deadline:
        time.sleep(0.001)  # Until it has become sleep.
    assert family(-1, 0, MARK.encode()) == [child.pid]


def test_reused_pid_is_not_family(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert family(child.pid, stat.start + 1, b"NO=mark") == []


def test_boot_id_stays_the_same() -> None:
    assert boot_id() == boot_id()
    assert sys.platform != "linux" or len(boot_id()) == 36
