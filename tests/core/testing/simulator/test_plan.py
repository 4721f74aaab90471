"""Plans are plain data."""

from __future__ import annotations

import msgspec

from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.plan import Plan


def test_a_plan_survives_being_written_down() -> None:
    for seed in range(20):
        plan = draw(seed)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
