"""Hypothesis strategies for everything that crosses the wire, built from the types themselves.

A new message or field is covered by every property test from the moment it exists. Needs hypothesis,
which core itself does not install.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from edgerm_core.attributes import Constraint
from edgerm_core.messages import AnyMessage
from edgerm_core.resources import MAX_MILLI, MAX_SLOTS, Device, DeviceRequest, ResourceRequest, Resources
from edgerm_core.resources import normal_ranges as normal
from edgerm_core.values import MAX_INTEGER

TEXT: Final = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES: Final = st.from_regex(re.compile(r"[a-z][a-z0-9_.]{0,10}", re.ASCII), fullmatch=True)
INTEGERS: Final = st.one_of(st.integers(-5, 300), st.integers(-MAX_INTEGER - 1, MAX_INTEGER))
FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False)

PLAIN: Final = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
"""What `values.is_plain` allows."""

_MILLI: Final = st.dictionaries(NAMES, st.integers(1, MAX_MILLI), max_size=3)
_PIECES: Final = st.lists(
    st.tuples(st.integers(0, 70_000), st.integers(0, 100)).map(lambda p: (p[0], p[0] + p[1])),
    min_size=1,
    max_size=3,
)
_RANGES: Final = st.dictionaries(NAMES, _PIECES.map(normal), max_size=2)
_SETS: Final = st.dictionaries(NAMES, st.frozensets(TEXT, min_size=1, max_size=3), max_size=2)
_SLOTS: Final = st.integers(1, MAX_SLOTS)
_IDS: Final = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
_ATTRIBUTES: Final = st.dictionaries(NAMES, TEXT | INTEGERS | FLOATS | st.booleans(), max_size=3)
_CONSTRAINTS: Final = st.builds(
    Constraint, NAMES, st.sampled_from(["==", "!=", "<", ">=", "in", "like", "exists"]), TEXT
)

_SPECIAL: Final[dict[type, st.SearchStrategy[Any]]] = {
    Resources: st.builds(Resources, _MILLI, _RANGES, _SETS, st.dictionaries(_IDS, _SLOTS, max_size=2)),
    ResourceRequest: st.builds(
        ResourceRequest,
        _MILLI,
        _RANGES,
        _SETS,
        st.lists(
            st.builds(
                DeviceRequest,
                _IDS,
                st.integers(1, 1000),
                st.lists(_CONSTRAINTS, max_size=2).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
    ),
    Device: st.builds(
        Device, _IDS, _IDS, _SLOTS, _ATTRIBUTES, st.dictionaries(TEXT, TEXT, max_size=2), st.booleans()
    ),
    Constraint: _CONSTRAINTS,
}
"""Types whose parts depend on each other."""


def _integers(info: inspect.IntType) -> st.SearchStrategy[int]:
    low = -MAX_INTEGER - 1 if info.ge is None else info.ge
    high = MAX_INTEGER if info.le is None else info.le
    return st.one_of(st.integers(max(low, -3), min(high, 300)), st.integers(low, high))


def _text(info: inspect.StrType) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        return st.from_regex(re.compile(info.pattern, re.ASCII))
    return TEXT


def _struct(cls: type[Any]) -> st.SearchStrategy[Any]:
    if cls in _SPECIAL:
        return _SPECIAL[cls]
    fields = {}
    for field in msgspec.inspect.type_info(cls).fields:  # type: ignore[attr-defined]
        strategy = _of(field.type)
        if field.name == "implementations":
            strategy = st.lists(_of(field.type.item_type), min_size=1, max_size=2).map(tuple)
        # Now and then the default, so that left-out fields are seen in every combination.
        if field.default is not msgspec.NODEFAULT:
            strategy = st.just(field.default) | strategy
        elif field.default_factory is not msgspec.NODEFAULT:
            strategy = st.builds(field.default_factory) | strategy
        fields[field.name] = strategy
    return st.builds(cls, **fields)


_BUILDERS: Final[dict[type[inspect.Type], Callable[[Any], st.SearchStrategy[Any]]]] = {
    inspect.IntType: _integers,
    inspect.FloatType: lambda i: st.floats(i.ge, i.le, allow_nan=False, allow_infinity=False),
    inspect.StrType: _text,
    inspect.BytesType: lambda i: st.binary(min_size=i.min_length or 0, max_size=i.min_length or 40),
    inspect.BoolType: lambda _: st.booleans(),
    inspect.NoneType: lambda _: st.none(),
    inspect.AnyType: lambda _: PLAIN,
    inspect.EnumType: lambda i: st.sampled_from([*i.cls]) if issubclass(i.cls, enum.Enum) else st.nothing(),
    inspect.LiteralType: lambda i: st.sampled_from(i.values),
    inspect.UnionType: lambda i: st.one_of([_of(t) for t in i.types]),
    inspect.VarTupleType: lambda i: st.lists(_of(i.item_type), max_size=2).map(tuple),
    inspect.TupleType: lambda i: st.tuples(*[_of(t) for t in i.item_types]),
    inspect.DictType: lambda i: st.dictionaries(_of(i.key_type), _of(i.value_type), max_size=2),
    inspect.StructType: lambda i: _struct(i.cls),
}


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:
    if isinstance(info, inspect.Metadata):
        return _of(info.type)
    return _BUILDERS[type(info)](info)


def message_of(message_type: type[AnyMessage]) -> st.SearchStrategy[Any]:
    """Return a strategy for valid messages of one type."""
    return _struct(message_type)


def messages() -> st.SearchStrategy[AnyMessage]:
    """Return a strategy for valid messages of all types."""
    return st.one_of([message_of(message_type) for message_type in AnyMessage.__args__])
