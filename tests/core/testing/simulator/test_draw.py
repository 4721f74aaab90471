"""Plans are drawn from the seed alone, and make sense."""

from __future__ import annotations

from edgerm_core.tasks import check_spec
from edgerm_core.testing.simulator.draw import draw
from edgerm_core.testing.simulator.plan import Join, SubmitTasks, SwitchOn


def test_the_same_seed_draws_the_same_plan_and_another_one_another() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


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
