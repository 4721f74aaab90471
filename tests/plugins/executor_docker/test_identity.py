"""An agent's identity is made once and survives whatever can happen to its file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from edgerm_executor_docker.identity import NAME, read_identity, why_not_kept


def test_it_stays_the_same_and_differs_from_others(tmp_path: Path) -> None:
    first = read_identity(tmp_path / "a")
    assert read_identity(tmp_path / "a") == first
    assert read_identity(tmp_path / "b") != first
    assert [path.name for path in (tmp_path / "a").iterdir()] == [NAME]


@pytest.mark.parametrize("text", ["", "0123", "not hexadecimal!", "x" * 1000])
def test_damaged_file_is_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    made = read_identity(tmp_path)
    assert len(made) == 16
    assert read_identity(tmp_path) == made


def test_several_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: read_identity(tmp_path / "x"), range(8)))) == 1


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        read_identity(tmp_path / "file" / "below")


def test_why_it_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_kept(tmp_path / "a" / "b") == ""
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert str(tmp_path) in why_not_kept(tmp_path / "a" / "b")
