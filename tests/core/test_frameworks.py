"""What a framework may say about itself. Each wrong field is refused by a sentence that names it."""

import math
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from edgerm_core.errors import SpecError
from edgerm_core.frameworks import MAX_WEIGHT, FrameworkInfo, check_framework
from edgerm_core.ids import FrameworkId

GOOD = FrameworkInfo(FrameworkId("lab"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "x", "role": "lab/sensing", "weight": 1, "failover_timeout_s": 0.0},
        {"weight": MAX_WEIGHT * 1000, "offers": True},
    ],
)
def test_a_sensible_framework_passes(fields: dict[str, Any]) -> None:
    check_framework(msgspec.structs.replace(GOOD, **fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "framework id"),
        ({"id": "a b"}, "framework id"),
        ({"name": "a\n"}, "framework name"),
        ({"role": "/"}, "role"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": MAX_WEIGHT * 1000 + 1}, "weight"),
        ({"failover_timeout_s": -1.0}, "failover_timeout_s"),
        ({"failover_timeout_s": math.nan}, "failover_timeout_s"),
        ({"failover_timeout_s": math.inf}, "failover_timeout_s"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        check_framework(msgspec.structs.replace(GOOD, **fields))


def test_weights_are_exact() -> None:
    assert FrameworkInfo(FrameworkId("a"), weight=333).weight_fraction == Fraction(333, 1000)


def test_a_framework_is_kept_for_ever_unless_it_says_otherwise() -> None:
    assert GOOD.failover_timeout_s is None
