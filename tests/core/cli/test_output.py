from __future__ import annotations

import json

import pytest

from edgerm_core.cli.output import Column, fancy, format_age, format_fields, format_table, one_line, to_json

COLUMNS = (
    Column("NAME", lambda row: str(row["name"])),
    Column("N", lambda row: str(row["n"]), right=True),
    Column("WHY", lambda row: str(row["why"])),
)


def test_table_is_aligned_without_trailing_spaces() -> None:
    rows = [{"name": "a", "n": 5, "why": ""}, {"name": "longer", "n": 1234, "why": "x"}]
    assert format_table(COLUMNS, rows) == "NAME       N  WHY\na          5\nlonger  1234  x\n"


def test_table_without_rows_has_its_titles() -> None:
    assert format_table(COLUMNS, []) == "NAME  N  WHY\n"


def test_text_of_a_task_cannot_move_the_cursor_or_break_the_line() -> None:
    rows = [{"name": "\x1b[2Jx\ny", "n": 1, "why": "\u202e"}]
    text = format_table(COLUMNS, rows)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("\n") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119.9, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")],
)
def test_age(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_fields_of_every_shape() -> None:
    assert format_fields({"cpus": 1.5, "mem": 64.0, "gpu": True, "ports": ["1-2"]}) == (
        "cpus=1.5 mem=64 gpu=true ports=[1-2]"
    )
    assert format_fields(["a", 1]) == "a 1"
    assert format_fields(None) == ""
    assert format_fields("cpus:1") == "cpus:1"


def test_json_keeps_order_and_carries_bytes_as_base64() -> None:
    text = to_json([{"z": b"\x00\xff", "a": None, "s": frozenset({"b", "a"})}])
    assert json.loads(text) == [{"z": "AP8=", "a": None, "s": ["a", "b"]}]
    assert text.index('"z"') < text.index('"a"')


def test_a_pipe_is_never_fancy() -> None:
    assert not fancy()


def test_one_line_keeps_letters_of_all_languages() -> None:
    assert one_line(" température °C\n") == "température °C"
