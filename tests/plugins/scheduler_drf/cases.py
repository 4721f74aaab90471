"""Reads the conformance cases and the exact reference in `tests/data/drf`."""

import importlib.util
import json
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "drf"

Case = dict[str, Any]


def load_cases() -> dict[str, Case]:
    """Return all cases by id."""
    return {case["id"]: case for case in json.loads((DATA / "cases.json").read_text())["cases"]}


def load_reference() -> ModuleType:
    """Return the reference as a module."""
    spec = importlib.util.spec_from_file_location("drf_reference", DATA / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def milli(amounts: dict[str, Any] | None) -> dict[str, int]:
    """Return exact amounts in 1/1000; they must be whole."""
    out: dict[str, int] = {}
    for name, value in (amounts or {}).items():
        exact = Fraction(str(value)) * 1000
        assert exact.denominator == 1
        if exact:
            out[name] = int(exact)
    return out
