"""The kernel's count of kills for memory."""

from __future__ import annotations

from pathlib import Path

from edgerm_executor_docker.oom import oom_kills


def test_count(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 7\noom_kill_other 9\n")
    assert oom_kills(vmstat) == 7


def test_kernel_that_does_not_count(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    assert oom_kills(vmstat) == 0
    vmstat.write_text("nr_free_pages 5\noom_kill x\n")
    assert oom_kills(vmstat) == 0


def test_this_kernel_counts() -> None:
    assert oom_kills() >= 0
