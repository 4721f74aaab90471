"""Limits that the kernel enforces: these tests need root and writable control groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from edgerm_core.logs import STDOUT, LogReader
from edgerm_core.tasks import Reason
from edgerm_core.testing.contracts.executor import PATIENCE_S, RunStarter, until

from .workloads import launch, living, shell

pytestmark = [pytest.mark.anyio, pytest.mark.root]


async def test_everything_is_enforced_here(run: RunStarter) -> None:
    capabilities = (await run.executor.fingerprint()).capabilities
    assert capabilities["cpu_limit"]
    assert capabilities["mem_limit"]
    assert capabilities["pids_limit"]


async def test_memory_hog_is_killed_with_the_reason_and_its_neighbour_lives(
    run: RunStarter, groups_of: Callable[[dict[str, object]], list[Path]]
) -> None:
    neighbour = await run(launch("sleep", 600, resources="mem:32"))
    hog = launch("python3", "-c", "x = b'1' * (200 << 20)", resources="mem:32MiB")
    result = await run.to_end(hog)
    assert groups_of(neighbour.data)
    assert groups_of(run.handles[-1].data) == [], "groups go with the end of the run"
    assert not result.ok
    assert result.reason == Reason.OUT_OF_MEMORY
    assert "32 MiB" in result.message
    with anyio.move_on_after(0.3) as scope:
        await run.executor.wait(neighbour)
    assert scope.cancelled_caught
    await run.executor.destroy(neighbour)


async def test_hog_that_is_only_a_child_still_names_memory(run: RunStarter) -> None:
    result = await run.to_end(shell("python3 -c \"x = b'1' * (200 << 20)\"; exit 9", resources="mem:32"))
    assert result.reason == Reason.OUT_OF_MEMORY
    assert result.exit_code == 9


BOMB = """
import os, time
children = refused = 0
for _ in range(2000):
    try:
        if os.fork() == 0:
            time.sleep(600)
        children += 1
    except OSError:
        refused += 1
print(children, refused)
raise SystemExit(1 if refused else 0)
"""


async def test_fork_bomb_meets_its_limit_and_its_neighbour_lives(run: RunStarter) -> None:
    neighbour = await run(shell("while :; do /bin/true; done"))
    bomb = launch("python3", "-c", BOMB, pids_limit=64)
    result = await run.to_end(bomb)
    assert result.reason == Reason.PID_LIMIT
    assert "limit of 64" in result.message
    assert run.printed(bomb).split()[0] == b"63"
    assert living(bomb) == []
    with anyio.move_on_after(0.3) as scope:
        await run.executor.wait(neighbour)
    assert scope.cancelled_caught


async def test_pids_limit_holds_without_being_asked_for(run: RunStarter) -> None:
    result = await run.to_end(launch("python3", "-c", BOMB))
    assert result.reason == Reason.PID_LIMIT
    assert "limit of 512" in result.message


async def test_cpu_quota_holds(run: RunStarter) -> None:
    handle = await run(shell("while :; do :; done", resources="cpus:0.2"))
    await anyio.sleep(0.3)
    # In this order: the time within which it was looked at, and not less.
    began = time.monotonic()
    first = (await run.executor.stats(handle)).cpu_s
    assert first is not None
    used_s = 0.0
    with anyio.fail_after(PATIENCE_S):
        # A busy machine may give it less, never (beyond a period's edge) more.
        while used_s < 0.4:
            await anyio.sleep(0.05)
            used_s = ((await run.executor.stats(handle)).cpu_s or 0.0) - first
    assert used_s / (time.monotonic() - began) < 0.27


async def test_stats_count_memory(run: RunStarter) -> None:
    spec = launch("python3", "-uc", "import time; x = b'1' * (20 << 20); print('full'); time.sleep(600)")
    handle = await run(spec)
    await until(lambda: run.printed(spec) != b"", "it never filled its memory")
    stats = await run.executor.stats(handle)
    assert stats.mem_bytes is not None
    assert 20 << 20 <= stats.mem_bytes < 100 << 20
    assert stats.mem_peak_bytes is not None
    assert stats.mem_peak_bytes >= stats.mem_bytes


async def test_fifty_megabytes_of_output_leave_a_bounded_ring(run: RunStarter) -> None:
    spec = shell("yes 0123456789abcdef | head -c 50000000; echo end")
    sandbox = run.sandbox(spec, log_limit_bytes=1 << 20)
    assert (await run.to_end(spec)).ok
    assert sum(path.stat().st_size for path in sandbox.log_dir.iterdir()) <= 1 << 20
    assert LogReader(sandbox.log_dir, STDOUT).bounds()[1] == 50_000_004
    assert run.printed(spec).endswith(b"end\n")


async def test_full_disk_costs_output_and_nothing_else(run: RunStarter) -> None:
    spec = shell("yes 0123456789abcdef | head -c 1000000; exit 0")
    sandbox = run.sandbox(spec)
    mounted = await anyio.run_process(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(sandbox.log_dir)], check=False
    )
    assert mounted.returncode == 0, mounted.stderr
    try:
        result = await run.to_end(spec)
        assert result.ok
        assert "could not be kept: No space left on device" in result.message
        assert 0 < len(run.printed(spec)) <= 128 << 10
        assert (await run.to_end(launch("true"))).ok
    finally:
        await anyio.run_process(["umount", str(sandbox.log_dir)])
