"""What a container uses, from made-up control groups of both kinds and from an engine's answer."""

from __future__ import annotations

from pathlib import Path

from edgerm_executor_docker.stats import engine_stats, read_stats

from edgerm_core.interfaces import TaskStats

CONTAINER = "c" * 64
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo: 999 1 0 0 0 0 0 0 999 1 0 0
  eth0: 100 1 0 0 0 0 0 0 20 1 0 0
  eth1:   3 1 0 0 0 0 0 0  4 1 0 0
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_v1(base: Path) -> tuple[Path, Path]:
    proc, root = base / "proc", base / "cgroup"
    path = f"/docker/{CONTAINER}"
    write(
        proc / "7/cgroup",
        f"4:cpu,cpuacct:{path}\n3:memory:{path}\n1:name=systemd:{path}\n0::/system.slice/docker.service\n",
    )
    write(proc / "7/net/dev", NET)
    write(root / f"cpuacct{path}/cpuacct.usage", "1500000000\n")
    write(root / f"memory{path}/memory.usage_in_bytes", "1000\n")
    write(root / f"memory{path}/memory.max_usage_in_bytes", "2000\n")
    write(root / f"memory{path}/memory.stat", "cache 500\ntotal_inactive_file 400\n")
    return proc, root


def make_v2(base: Path) -> tuple[Path, Path]:
    proc, root = base / "proc", base / "cgroup"
    path = f"/system.slice/docker-{CONTAINER}.scope"
    write(proc / "7/cgroup", f"0::{path}\n")
    write(proc / "7/net/dev", NET)
    write(root / path[1:] / "cpu.stat", "usage_usec 1500000\nuser_usec 1\n")
    write(root / path[1:] / "memory.current", "1000\n")
    write(root / path[1:] / "memory.peak", "2000\n")
    write(root / path[1:] / "memory.stat", "file 500\ninactive_file 400\n")
    return proc, root


def test_both_kinds_of_groups_tell_the_same(tmp_path: Path) -> None:
    for make in (make_v1, make_v2):
        proc, root = make(tmp_path / make.__name__)
        assert read_stats(CONTAINER, 7, True, proc, root) == TaskStats(1.5, 600, 2000, 103, 24)
        assert read_stats(CONTAINER, 7, False, proc, root) == TaskStats(1.5, 600, 2000)


def test_old_kernel_without_a_peak(tmp_path: Path) -> None:
    proc, root = make_v2(tmp_path)
    for path in root.rglob("memory.peak"):
        path.unlink()
    assert read_stats(CONTAINER, 7, False, proc, root) == TaskStats(1.5, 600, None)


def test_process_number_that_belongs_to_another_by_now(tmp_path: Path) -> None:
    proc, root = make_v1(tmp_path)
    assert read_stats("d" * 64, 7, True, proc, root) is None
    assert read_stats(CONTAINER, 8, True, proc, root) is None


def test_groups_that_cannot_be_seen_from_here(tmp_path: Path) -> None:
    proc, _ = make_v1(tmp_path)
    assert read_stats(CONTAINER, 7, True, proc, tmp_path / "elsewhere") is None


def test_engines_answer() -> None:
    raw = {
        "cpu_stats": {"cpu_usage": {"total_usage": 1_500_000_000}},
        "memory_stats": {"usage": 1000, "max_usage": 2000, "stats": {"total_inactive_file": 400}},
        "networks": {"eth0": {"rx_bytes": 100, "tx_bytes": 20}, "eth1": {"rx_bytes": 3, "tx_bytes": 4}},
    }
    assert engine_stats(raw) == TaskStats(1.5, 600, 2000, 103, 24)
    assert engine_stats({}) == TaskStats()
    assert engine_stats({"memory_stats": {"usage": 1000, "stats": {"inactive_file": 1}}}).mem_bytes == 999
