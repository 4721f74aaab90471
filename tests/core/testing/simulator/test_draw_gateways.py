"""Gateways are drawn beside the rest of a plan."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.plan import SwitchOn
from edgerm_core.testing.simulator.swarm import EVERYTHING, GATEWAY_KINDS, Swarm
from tests.core.testing.simulator.test_swarm import WORKLOAD


@pytest.mark.parametrize("kind", GATEWAY_KINDS)
def test_every_kind_of_disturbance_of_gateways_can_be_asked_for(kind: str) -> None:
    swarm = Swarm((), True, faults_s=(500.0, 600.0), pace_s=(10.0, 20.0), gateways=(1, 2))
    plan = draw(3, msgspec.structs.replace(swarm, gateway_kinds=(kind,)))
    disturbing = [a for a in plan.actions if a.at and type(a).__name__ not in WORKLOAD]
    assert disturbing
    assert max(action.at for action in disturbing) < 600.0


def test_gateways_leave_the_rest_of_a_plan_as_it_was() -> None:
    without = msgspec.structs.replace(EVERYTHING, gateways=(0, 0))
    with_gateways = 0
    for seed in range(40):
        plain, plan = draw(seed, without).actions, draw(seed).actions
        assert not any(isinstance(a, SwitchOn) and (a.machine.gateway or a.machine.via) for a in plain)
        kept = [action for action in plain if not isinstance(action, SwitchOn)]
        assert [action for action in plan if action in kept] == kept
        with_gateways += plan != plain
    assert 10 < with_gateways < 30
