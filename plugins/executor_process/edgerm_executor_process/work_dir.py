"""Prepares a task's working directory: its program, its volumes, its owner."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgerm_core.errors import ExecutorError
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.results import RESULT_NAME
from edgerm_executor_process.command import PROGRAM_NAME


def prepare_work_dir(launch: TaskLaunch, work_dir: Path, owner: tuple[int, int] | None) -> None:
    """Copy the program, link the volumes, give the directory to the task's user. Blocking.

    Raises:
        ExecutorError: if the disk refuses, or a volume's place is taken.
    """
    try:
        if launch.blob_path is not None:
            program = work_dir / PROGRAM_NAME
            program.unlink(missing_ok=True)
            # A copy, since the cached blob is shared and must neither be executable nor be changed.
            shutil.copyfile(launch.blob_path, program)
            program.chmod(0o755)
        for volume, directory in launch.volumes:
            _link_volume(work_dir, volume.path.lstrip("/"), directory)
        (work_dir / RESULT_NAME).unlink(missing_ok=True)
        if owner is not None:
            os.chown(work_dir, *owner)
    except OSError as error:
        raise ExecutorError(
            f"the working directory cannot be prepared: {error}", recoverable=True
        ) from error


def _link_volume(work_dir: Path, place: str, directory: Path) -> None:
    link = work_dir / place
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.parent.resolve().is_relative_to(work_dir.resolve()):
        raise ExecutorError(f"volume path {place} leads out of the working directory")
    if link.is_symlink():
        link.unlink()  # From an earlier run in this sandbox.
    elif link.exists():
        raise ExecutorError(f"volume path {place} is taken by a file of the task")
    link.symlink_to(directory.absolute(), target_is_directory=True)
