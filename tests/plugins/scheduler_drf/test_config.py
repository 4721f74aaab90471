"""The section `[scheduler.drf]`: exact weights, and a sentence for each wrong value."""

from fractions import Fraction

import pytest
from edgerm_scheduler_drf.config import DrfConfig

from edgerm_core.config import parse_config
from edgerm_core.errors import ConfigError


def section(text: str) -> DrfConfig:
    return parse_config(f"[scheduler.drf]\n{text}").section("scheduler", "drf", DrfConfig)


def test_weights_are_read_exactly() -> None:
    config = section('role_weights = { "lab" = 2, "lab/sensing" = "0.3", "ops" = 0.1 }')
    assert config.weights() == {
        "lab": Fraction(2),
        "lab/sensing": Fraction(3, 10),
        "ops": Fraction(1, 10),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('role_weights = { "lab" = 0 }', "must be 0.001 to 1000000"),
        ('role_weights = { "lab" = -1 }', "must be 0.001 to 1000000"),
        ('role_weights = { "lab" = "much" }', "is not a number"),
        ('role_weights = { "lab" = "nan" }', "must be 0.001 to 1000000"),
        ('role_weights = { "a//b" = 1 }', "is not one to eight names"),
        ("max_decisions = 0", "max_decisions must be 1 to 1000000"),
        ("max_reservations = -1", "max_reservations must be 0 to 10000"),
        ("reserve_after_s = -1", "reserve_after_s must be"),
        ("reserve_for_s = 0", "reserve_for_s must be"),
        ('strategy = "scatter"', "'scatter'"),
        ("fair = true", "unknown key"),
    ],
)
def test_a_wrong_value_is_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        section(text)
