"""Attributes: typed facts about a machine or a device, and the constraints tasks put on them.

Attributes are described, not consumed: `os = "linux"`, `link.class = "constrained"`, `floor = 3`.
A constraint is written as people write comparisons: `os==linux`, `floor>=2`, `zone in a,b`,
`hostname like gw-*`, `exists gpu.model`, `not exists battery`. Patterns are globs and not regular
expressions, because a constraint comes from a framework and runs on the master: a glob cannot be
made to take exponential time.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from edgerm_core.errors import SpecError
from edgerm_core.values import Finite, Integer

AttributeValue = str | Integer | Finite | bool
Attributes = dict[str, AttributeValue]

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "like", "exists", "not exists"]

MAX_VALUE_CHARS: Final = 256
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_COMPARISON = re.compile(r"\s*([a-z][a-z0-9_.-]*)\s*(==|!=|<=|>=|<|>|=)\s*(.*?)\s*")
_WORD = re.compile(r"\s*([a-z][a-z0-9_.-]*)\s+(not\s+in|in|like)\s+(.*?)\s*")
_EXISTS = re.compile(r"\s*(not\s+)?exists\s+([a-z][a-z0-9_.-]*)\s*")


class Constraint(msgspec.Struct, frozen=True, array_like=True):
    """A fact that must hold. A missing attribute satisfies only `!=`, `not in` and `not exists`."""

    attribute: str
    operator: Operator
    value: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.attribute) or len(self.value) > MAX_VALUE_CHARS:
            raise SpecError(
                f"constraint on {self.attribute[:64]!r}: not an attribute name, or value too long"
            )

    def __str__(self) -> str:
        if self.operator in ("exists", "not exists"):
            return f"{self.operator} {self.attribute}"
        if self.operator.isalpha() or " " in self.operator:
            return f"{self.attribute} {self.operator} {self.value}"
        return f"{self.attribute}{self.operator}{self.value}"


class Preference(msgspec.Struct, frozen=True, array_like=True):
    """A constraint that would be nice, and how nice: it adds `weight` to an agent's score."""

    constraint: Constraint
    weight: float = 1.0


def parse_constraint(text: str) -> Constraint:
    """Read `os==linux`, `floor >= 2`, `zone in a,b`, `hostname like gw-*`, `exists gpu`.

    Raises:
        SpecError: showing the text and the accepted forms.
    """
    if match := _EXISTS.fullmatch(text):
        return Constraint(match[2], "not exists" if match[1] else "exists")
    if match := _WORD.fullmatch(text):
        operator = " ".join(match[2].split())
        return Constraint(match[1], operator, match[3])  # type: ignore[arg-type]
    if match := _COMPARISON.fullmatch(text):
        operator = "==" if match[2] == "=" else match[2]
        return Constraint(match[1], operator, match[3])  # type: ignore[arg-type]
    raise SpecError(
        f"{text[:80]!r} is not a constraint: expected something like os==linux, floor>=2, "
        f"'zone in a,b', 'hostname like gw-*' or 'exists gpu'"
    )


def satisfies(constraint: Constraint, attributes: Mapping[str, AttributeValue]) -> bool:
    """Return whether the facts satisfy the constraint.

    Numbers compare as numbers when both sides are numbers, everything else as text; `<` and its kin
    are false on text. Booleans are written `true` and `false`.
    """
    present = constraint.attribute in attributes
    operator = constraint.operator
    if operator == "exists":
        return present
    if operator == "not exists":
        return not present
    if not present:
        return operator in ("!=", "not in")
    value = attributes[constraint.attribute]
    if operator == "like":
        return fnmatch.fnmatchcase(_text(value), constraint.value)
    if operator in ("in", "not in"):
        wanted = [item.strip() for item in constraint.value.split(",")]
        return any(_equal(value, item) for item in wanted) == (operator == "in")
    if operator == "==":
        return _equal(value, constraint.value)
    if operator == "!=":
        return not _equal(value, constraint.value)
    left, right = _number(value), _number(constraint.value)
    if left is None or right is None:
        return False
    if operator == "<":
        return left < right
    if operator == "<=":
        return left <= right
    if operator == ">":
        return left > right
    return left >= right


def _text(value: AttributeValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: AttributeValue) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _equal(value: AttributeValue, wanted: str) -> bool:
    if _text(value) == wanted:
        return True
    left, right = _number(value), _number(wanted)
    return left is not None and left == right
