"""Directories of a test's sandbox appear when they are asked for."""

from __future__ import annotations

from pathlib import Path

from edgerm_core.limits import LOG_RING_BYTES
from edgerm_core.testing.sandboxes import DirectorySandbox


def test_directories_are_made_one_by_one_below_the_base(tmp_path: Path) -> None:
    base = tmp_path / "deep" / "sandbox"
    sandbox = DirectorySandbox(base)
    assert not base.exists()
    made: list[Path] = []
    for directory in ("work_dir", "state_dir", "log_dir"):
        path = getattr(sandbox, directory)
        made.append(path)
        assert sorted(base.iterdir()) == sorted(made)
        (path / "file").touch()
        assert getattr(sandbox, directory) == path, "asking again changes nothing"
        assert (path / "file").exists()


def test_ring_size_is_the_usual_one_unless_told(tmp_path: Path) -> None:
    assert DirectorySandbox(tmp_path).log_limit_bytes == LOG_RING_BYTES
    assert DirectorySandbox(tmp_path, 4096).log_limit_bytes == 4096
