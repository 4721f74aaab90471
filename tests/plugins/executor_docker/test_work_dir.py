"""Who may write into a task's directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edgerm_executor_docker.work_dir import needs_opening, open_directories


@pytest.mark.parametrize("user", ["", "root", "0", "0:0"])
def test_root_in_the_container_is_the_agents_root(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not needs_opening(user)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert needs_opening(user)


@pytest.mark.parametrize("user", ["nobody", "1000", "1000:1000", "app:app"])
def test_others_need_an_open_directory(user: str) -> None:
    assert needs_opening(user)


def test_only_new_directories_of_ours_are_opened(tmp_path: Path) -> None:
    new, used = tmp_path / "new", tmp_path / "used"
    for directory in (new, used):
        directory.mkdir(mode=0o755)
    (used / "file").touch()
    link = tmp_path / "link"
    link.symlink_to(used / "file")
    open_directories([new, used, link])
    assert new.stat().st_mode & 0o7777 == 0o1777
    assert used.stat().st_mode & 0o7777 == 0o755
