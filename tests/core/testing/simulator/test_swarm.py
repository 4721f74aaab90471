"""A swarm bounds what seeds draw, and every kind of disturbance can be had."""

from __future__ import annotations

import msgspec
import pytest

from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.plan import Cut
from edgerm_core.testing.simulator.swarm import EVERYTHING, KINDS, Swarm

WORKLOAD = {"SwitchOn", "Join", "SubmitTasks", "Upload"}


def test_a_swarm_without_faults_draws_none() -> None:
    quiet = msgspec.structs.replace(EVERYTHING, kinds=(), gateway_kinds=())
    kinds = {type(action).__name__ for seed in range(30) for action in draw(seed, quiet).actions}
    assert kinds <= WORKLOAD


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_disturbance_can_be_asked_for(kind: str) -> None:
    swarm = Swarm(kinds=(kind,), all_kinds=True, faults_s=(500.0, 600.0), pace_s=(10.0, 20.0))  # type: ignore[arg-type]
    disturbing = [a for a in draw(3, swarm).actions if a.at and type(a).__name__ not in WORKLOAD]
    assert disturbing
    assert max(action.at for action in disturbing) < 600.0


def test_seeds_enable_different_kinds() -> None:
    with_cuts = [any(isinstance(a, Cut) for a in draw(seed).actions) for seed in range(40)]
    assert 3 < sum(with_cuts) < 37
