"""Groups of both layouts. v2 is a made-up tree: plain files stand for the kernel's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgerm_executor_process import group as group_module
from edgerm_executor_process.group import Group, remove_parent

from edgerm_core import cgroups


def plan_v2(base: Path, writes: list[tuple[str, str, str, bool]]) -> dict[str, Any]:
    return {
        "v2": True,
        "base": {"all": str(base)},
        "path": {"all": str(base / "edgerm" / "agent" / "run")},
        "writes": writes,
    }


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """A made-up delegated group, with the run's own directory filled as the kernel would."""
    for level in (tmp_path, tmp_path / "edgerm", tmp_path / "edgerm" / "agent"):
        level.mkdir(exist_ok=True)
        (level / "cgroup.controllers").write_text("cpu io memory pids")
        (level / "cgroup.subtree_control").write_text("")
    run = tmp_path / "edgerm" / "agent" / "run"
    run.mkdir()
    for name, text in {
        "pids.max": "max",
        "cgroup.procs": "12\n34\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.events": "low 0\noom 3\noom_kill 2\n",
        "pids.events": "max 5\n",
    }.items():
        (run / name).write_text(text)
    return tmp_path


def test_v2_files_are_read(v2: Path) -> None:
    group = Group(plan_v2(v2, [("pids", "pids.max", "100", True)]))
    group.make()
    run = v2 / "edgerm" / "agent" / "run"
    assert (run / "pids.max").read_text().startswith("100")
    assert group.procs_files() == [str(run / "cgroup.procs")]
    assert group.pids() == [12, 34]
    assert group.usage() == (1.5, 4096, 8192)
    assert group.oom_kills() == 2
    assert group.pids_hits() == 5
    group.forbid_forks()
    assert (run / "pids.max").read_text().startswith("0")
    group.unthrottle()  # No limit on the processor was asked for: there is nothing to lift.
    assert not (run / "cpu.max").exists()
    (run / "cpu.max").write_text("20000 100000")
    group.unthrottle()
    assert (run / "cpu.max").read_text().startswith("max")


def test_v2_controllers_are_passed_down_level_by_level(v2: Path) -> None:
    shutil.rmtree(v2 / "edgerm" / "agent")
    Group(plan_v2(v2, [])).make()
    assert (v2 / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (v2 / "edgerm" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_limit_the_kernel_refuses_fails_only_if_it_is_needed(v2: Path) -> None:
    Group(plan_v2(v2, [("memory", "memory.swap.max", "0", False)])).make()
    with pytest.raises(FileNotFoundError):
        Group(plan_v2(v2, [("memory", "memory.max", "1", True)])).make()


def test_empty_plan_is_falsy_and_harmless() -> None:
    group = Group({"v2": False, "base": {}, "path": {}, "writes": []})
    assert not group
    group.make()
    group.forbid_forks()
    group.unthrottle()
    assert group.pids() == []
    assert group.procs_files() == []
    assert group.usage() == (None, None, None)
    assert (group.oom_kills(), group.pids_hits()) == (0, 0)
    assert group.remove()


@pytest.mark.root
def test_real_v1_group_is_made_and_removed_with_its_parents() -> None:
    base = Path("/sys/fs/cgroup/pids")
    top = f"edgerm-test-{os.getpid()}"
    path = base / top / "agent" / "run"
    group = Group(
        {
            "v2": False,
            "base": {"pids": str(base)},
            "path": {"pids": str(path)},
            "writes": [("pids", "pids.max", "7", True)],
        }
    )
    group.make()
    group.make()
    assert (path / "pids.max").read_text() == "7\n"
    assert group.pids() == []
    assert group.remove()
    assert group.remove()
    for parent in group.parents():
        remove_parent(parent)
    assert not (base / top).exists()


def test_keeper_and_core_agree_on_the_leaf() -> None:
    assert group_module.DAEMON_LEAF == cgroups.DAEMON_LEAF
