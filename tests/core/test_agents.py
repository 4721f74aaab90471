"""What an agent says about itself."""

import math

import msgspec
import pytest

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.errors import SpecError


def test_a_fingerprint_carries_plain_facts_only() -> None:
    Fingerprint("wasm", attributes={"wasi": "p1", "memory64": False, "limits": [1, 2.5]})
    with pytest.raises(SpecError, match="executor wasm"):
        Fingerprint("wasm", attributes={"speed": math.nan})


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [1], 1 << 63])
def test_a_fact_that_cannot_be_compared_is_refused(value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(["a", "", [], {"speed": value}], AgentInfo)
