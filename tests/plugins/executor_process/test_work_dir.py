"""What is put into a working directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from edgerm_executor_process.work_dir import prepare_work_dir

from edgerm_core.errors import ExecutorError
from edgerm_core.tasks import Volume

from .workloads import launch


def test_volume_can_be_linked_again(tmp_path: Path) -> None:
    work, volume = tmp_path / "work", tmp_path / "volume"
    work.mkdir()
    volume.mkdir()
    spec = msgspec.structs.replace(launch("true"), volumes=((Volume("data"), volume),))
    for _ in range(2):
        prepare_work_dir(spec, work, None)
        assert (work / "data").resolve() == volume.resolve()


def test_volume_over_a_file_is_refused(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "data").write_text("")
    spec = msgspec.structs.replace(launch("true"), volumes=((Volume("data"), tmp_path),))
    with pytest.raises(ExecutorError, match="taken"):
        prepare_work_dir(spec, work, None)


def test_volume_behind_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "out").symlink_to(tmp_path)
    spec = msgspec.structs.replace(launch("true"), volumes=((Volume("out/data"), tmp_path),))
    with pytest.raises(ExecutorError, match="leads out"):
        prepare_work_dir(spec, work, None)
    assert not (tmp_path / "data").exists()


def test_blob_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="gone"):
        prepare_work_dir(launch("x", blob_path=tmp_path / "gone"), tmp_path, None)


def test_result_of_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / ".edgerm-result").write_text("old")
    prepare_work_dir(launch("true"), tmp_path, None)
    assert not (tmp_path / ".edgerm-result").exists()
