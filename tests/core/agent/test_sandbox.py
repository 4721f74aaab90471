"""Where tasks live on the disk, and for how long."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgerm_core.agent import sandbox as sandbox_module
from edgerm_core.agent.sandbox import Sandboxes
from edgerm_core.ids import TaskId, blob_id
from edgerm_core.limits import SANDBOX_KEEP_S
from edgerm_core.logs import STDOUT, LogReader, LogWriter
from edgerm_core.tasks import File
from edgerm_core.testing.agents import a_launch

KEY = (TaskId(1), 1)


@pytest.fixture
def sandboxes(tmp_path: Path) -> Sandboxes:
    return Sandboxes(tmp_path, 4096)


def with_log(sandboxes: Sandboxes, task_id: int, text: bytes = b"hello\n") -> None:
    writer = LogWriter(sandboxes.open((TaskId(task_id), 1)).log_dir, STDOUT, 4096)
    writer.write(text)
    writer.close()


def test_a_task_that_asks_for_nothing_touches_no_disk(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandboxes.open(KEY)
    assert sandboxes.release(KEY, 0.0) is None
    assert list(tmp_path.iterdir()) == []


def test_work_and_state_go_with_the_task_and_logs_stay(sandboxes: Sandboxes, tmp_path: Path) -> None:
    sandbox = sandboxes.open(KEY)
    (sandbox.work_dir / "scratch").write_text("x")
    (sandbox.state_dir / "pid").write_text("1")
    with_log(sandboxes, 1)
    released = sandboxes.release(KEY, 0.0)
    assert released is sandbox
    released.remove_work()
    assert [path.name for path in (tmp_path / "tasks/t1.1").iterdir()] == ["logs"]
    logs = sandboxes.logs(TaskId(1), 0)
    assert logs is not None
    assert LogReader(logs, STDOUT).read(0, 100) == (0, b"hello\n")


def test_what_cannot_be_removed_is_named(sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = sandboxes.open(KEY)
    work = sandbox.work_dir
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert sandbox.remove_work() == [work]
    assert sandbox.remove_work() == []


def test_without_logs_nothing_stays(sandboxes: Sandboxes, tmp_path: Path) -> None:
    _ = sandboxes.open(KEY).work_dir
    released = sandboxes.release(KEY, 0.0)
    assert released is not None
    released.remove_work()
    assert not (tmp_path / "tasks/t1.1").exists()


def test_logs_go_after_their_time(sandboxes: Sandboxes) -> None:
    with_log(sandboxes, 1)
    sandboxes.release(KEY, 100.0)
    assert sandboxes.expire(100.0 + SANDBOX_KEEP_S - 1) == []
    assert len(sandboxes.expire(100.0 + SANDBOX_KEEP_S)) == 1
    assert sandboxes.logs(TaskId(1), 0) is None


def test_logs_of_too_many_tasks_go_oldest_first(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "SANDBOX_KEEP_COUNT", 2)
    for task_id in range(1, 5):
        with_log(sandboxes, task_id)
        sandboxes.release((TaskId(task_id), 1), float(task_id))
    sandboxes.expire(5.0)
    assert [sandboxes.logs(TaskId(task_id), 1) is not None for task_id in range(1, 5)] == [
        False,
        False,
        True,
        True,
    ]


def test_what_an_earlier_agent_left_is_taken_up_or_removed(sandboxes: Sandboxes, tmp_path: Path) -> None:
    for task_id in (1, 2, 3):
        (sandboxes.open((TaskId(task_id), 1)).work_dir / "file").write_text("x")
    with_log(sandboxes, 1)
    with_log(sandboxes, 2)
    (tmp_path / "tasks/not-ours").mkdir()
    after = Sandboxes(tmp_path, 4096)
    after.clean([KEY], now=2e9)
    after.expire(2e9)
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["not-ours", "t1.1"]
    assert (tmp_path / "tasks/t1.1/work/file").exists(), "it still runs"
    released = after.release(KEY, 2e9)
    assert released is not None
    released.remove_work()
    assert not (tmp_path / "tasks/t1.1/work").exists()


def test_a_link_left_by_a_task_does_not_lead_a_file_out_of_the_sandbox(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    blob = tmp_path / "blob"
    blob.write_bytes(b"new")
    sandbox = sandboxes.open(KEY)
    (sandbox.work_dir / "data").symlink_to(victim)
    launch = a_launch(files=(File("data", blob_id(b"new")),))
    sandbox.prepare(launch, {blob_id(b"new"): blob}, tmp_path / "volumes")
    assert victim.read_bytes() == b"precious"
    assert (sandbox.work_dir / "data").read_bytes() == b"new"
