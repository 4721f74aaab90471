"""Names, task numbers and content hashes."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.errors import SpecError
from edgerm_core.ids import TaskId, blob_id, check_name, check_role, format_task_id, parse_task_id


@pytest.mark.parametrize("name", ["a", "A9", "gw-1.lab_2", "x" * 64])
def test_a_name_passes_and_comes_back(name: str) -> None:
    assert check_name(name, "task name") == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "ä", "x" * 65, "\x1b[31m"])
def test_what_is_no_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(SpecError, match="framework id"):
        check_name(name, "framework id")


@pytest.mark.parametrize("role", ["lab", "lab/sensing", "*", "a/b/c/d/e/f/g/h"])
def test_a_role_is_a_path_of_names(role: str) -> None:
    assert check_role(role) == role


@pytest.mark.parametrize("role", ["", "/lab", "lab/", "lab//x", "a/b/c/d/e/f/g/h/i", "a b"])
def test_what_is_no_role_is_refused(role: str) -> None:
    with pytest.raises(SpecError, match="role"):
        check_role(role)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**18 - 1))
def test_a_task_id_reads_back_as_it_is_written(number: int) -> None:
    assert parse_task_id(format_task_id(TaskId(number))) == number
    assert parse_task_id(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "t", "t0", "0", "-1", "t-1", "1.5", "tt1", "t1 ", "\u0664", "t" + "9" * 19]
)
def test_what_is_no_task_id_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="not a task id"):
        parse_task_id(text)


def test_a_blob_is_named_by_its_sha_256() -> None:
    assert blob_id(b"abc") == hashlib.sha256(b"abc").digest()
    assert len(blob_id(b"")) == 32
