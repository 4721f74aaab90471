"""Plans: drawn from the seed alone, plain data, and all there is in the swarm's bounds."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.tasks import check_spec
from edgerm_core.testing.simulator.plan import (
    EVERYTHING,
    GATEWAY_KINDS,
    KINDS,
    Cut,
    Join,
    Plan,
    SubmitTasks,
    Swarm,
    SwitchOn,
    draw,
)


def test_the_same_seed_draws_the_same_plan_and_another_one_another() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_plan_survives_being_written_down() -> None:
    for seed in range(20):
        plan = draw(seed)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_actions_come_in_order_and_specs_are_right() -> None:
    for seed in range(50):
        plan = draw(seed)
        times = [action.at for action in plan.actions]
        assert times == sorted(times)
        assert any(isinstance(action, SwitchOn) for action in plan.actions)
        assert any(isinstance(action, Join) for action in plan.actions)
        for action in plan.actions:
            if isinstance(action, SubmitTasks):
                check_spec(action.spec)


def test_a_swarm_without_faults_draws_none() -> None:
    quiet = msgspec.structs.replace(EVERYTHING, kinds=(), gateway_kinds=())
    kinds = {type(action).__name__ for seed in range(30) for action in draw(seed, quiet).actions}
    assert kinds <= {"SwitchOn", "Join", "SubmitTasks", "Upload"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_disturbance_can_be_asked_for(kind: str) -> None:
    swarm = Swarm(kinds=(kind,), all_kinds=True, faults_s=(500.0, 600.0), pace_s=(10.0, 20.0))  # type: ignore[arg-type]
    disturbing = [a for a in draw(3, swarm).actions if a.at and type(a).__name__ not in _WORKLOAD]
    assert disturbing
    assert max(action.at for action in disturbing) < 600.0


@pytest.mark.parametrize("kind", GATEWAY_KINDS)
def test_every_kind_of_disturbance_of_gateways_can_be_asked_for(kind: str) -> None:
    swarm = Swarm((), True, faults_s=(500.0, 600.0), pace_s=(10.0, 20.0), gateways=(1, 2))
    plan = draw(3, msgspec.structs.replace(swarm, gateway_kinds=(kind,)))
    disturbing = [a for a in plan.actions if a.at and type(a).__name__ not in _WORKLOAD]
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


_WORKLOAD = {"SwitchOn", "Join", "SubmitTasks", "Upload"}


def test_seeds_enable_different_kinds() -> None:
    with_cuts = [any(isinstance(a, Cut) for a in draw(seed).actions) for seed in range(40)]
    assert 3 < sum(with_cuts) < 37
