"""The strategies make every message, with every field left out and filled in, and nothing invalid."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from edgerm_core.messages import AnyMessage, Launch
from edgerm_core.resources import Resources, normal_ranges
from edgerm_core.testing.strategies import NAMES, PLAIN, message_of
from edgerm_core.values import is_plain

TYPES: list[Any] = list(AnyMessage.__args__)


def optional_fields(message_type: Any) -> dict[str, Any]:
    """Fields that have a default, with it."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(message_type):
        if field.default is not msgspec.NODEFAULT:
            found[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            found[field.name] = field.default_factory()
    return found


@pytest.mark.parametrize("message_type", TYPES, ids=lambda t: t.__name__)
def test_messages_are_valid_and_every_field_is_left_out_and_filled_in(message_type: Any) -> None:
    defaults = optional_fields(message_type)
    left_out: set[str] = set()
    filled_in: set[str] = set()

    @settings(
        max_examples=100,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(message_of(message_type))
    def collect(message: Any) -> None:
        assert type(message) is message_type
        # Types and ranges are checked only where something is converted.
        plain = msgspec.to_builtins(message, builtin_types=(bytes, frozenset))
        assert msgspec.convert(plain, message_type) == message
        for name, default in defaults.items():
            (left_out if getattr(message, name) == default else filled_in).add(name)

    collect()
    assert left_out == defaults.keys()
    assert filled_in == defaults.keys()


@settings(max_examples=100, deadline=None)
@given(PLAIN, NAMES)
def test_plain_values_are_plain_and_names_are_names(value: Any, name: str) -> None:
    assert is_plain(value)
    assert Resources.parse(f"{name}:1").scalars == {name: 1000}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(message_of(Launch))
def test_parts_that_depend_on_each_other_fit(launch: Launch) -> None:
    for ranges in launch.resources.ranges.values():
        assert normal_ranges(ranges) == ranges
