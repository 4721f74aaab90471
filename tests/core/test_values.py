"""Which values are plain."""

import math
from typing import Any

import pytest
from hypothesis import given, settings

from edgerm_core.testing.strategies import PLAIN
from edgerm_core.values import MAX_INTEGER, is_plain


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_what_every_language_can_read_back_is_plain(value: Any) -> None:
    assert is_plain(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        -math.inf,
        MAX_INTEGER + 1,
        -MAX_INTEGER - 2,
        {1: 2},
        {"a": {b"b": 1}},
        {1, 2},
        object(),
        [[math.nan]],
    ],
)
def test_everything_else_is_not(value: Any) -> None:
    assert not is_plain(value)


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(8):
        value = [value]
    assert is_plain(value)
    assert not is_plain([value])
