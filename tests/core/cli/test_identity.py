from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.cli.identity import MAX_PREFIX_CHARS, held_framework_id
from edgerm_core.errors import SpecError
from edgerm_core.ids import check_name


def test_one_after_the_other_gets_the_same_id(tmp_path: Path) -> None:
    with held_framework_id("run", tmp_path) as first:
        pass
    with held_framework_id("run", tmp_path) as second:
        pass
    assert first == second
    assert first.startswith("run-")


def test_at_the_same_time_and_under_other_names_ids_differ(tmp_path: Path) -> None:
    with (
        held_framework_id("run", tmp_path) as first,
        held_framework_id("run", tmp_path) as second,
        held_framework_id("lab", tmp_path) as third,
    ):
        assert len({first, second, third}) == 3


def test_another_user_gets_another_id(tmp_path: Path) -> None:
    with (
        held_framework_id("run", tmp_path / "a") as first,
        held_framework_id("run", tmp_path / "b") as second,
    ):
        assert first != second


def test_without_a_directory_the_id_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ids = set()
    for _ in range(2):
        with held_framework_id("run", tmp_path / "file" / "below") as framework_id:
            ids.add(framework_id)
    assert len(ids) == 2


def test_damaged_owner_file_costs_the_history_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("../../etc")
    with held_framework_id("run", tmp_path) as framework_id:
        assert check_name(framework_id, "framework")


def test_longest_name_still_makes_a_framework_id(tmp_path: Path) -> None:
    with held_framework_id("x" * 64, tmp_path) as framework_id:
        assert check_name(framework_id, "framework").startswith("x" * MAX_PREFIX_CHARS + "-")


def test_what_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError), held_framework_id("../x", tmp_path):
        pass
