"""Shrinking finds the few actions that matter, and stops when its time is over."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.testing.simulator.plan import Plan, Reset
from edgerm_core.testing.simulator.shrink import kind_of, shrink, with_actions

PLAN = Plan(1, 100.0, actions=tuple(Reset(float(at), f"a{at}") for at in range(40)))


def names(plan: Plan) -> set[str]:
    return {action.who for action in plan.actions if isinstance(action, Reset)}


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 39), max_size=5))
def test_only_what_is_needed_is_left(needed: set[int]) -> None:
    wanted = {f"a{number}" for number in needed}
    kept = shrink(PLAN, lambda plan: wanted <= names(plan))
    assert set(kept) == needed or (not needed and len(kept) == 1)


def test_when_time_is_over_the_best_so_far_counts() -> None:
    ticks = itertools.count()
    kept = shrink(PLAN, lambda plan: "a7" in names(plan), seconds=3, clock=lambda: float(next(ticks)))
    assert 7 in kept
    assert len(kept) < 40


def test_a_plan_with_some_of_its_actions_is_the_same_otherwise() -> None:
    fewer = with_actions(PLAN, [3, 5])
    assert fewer.seed == PLAN.seed
    assert fewer.actions == (PLAN.actions[3], PLAN.actions[5])


def test_failures_of_one_kind_differ_in_names_and_numbers_only() -> None:
    assert kind_of("a1: t3.1+0 (w1) begins: [cpus:1] of [cpus:4]") == kind_of(
        "a2: t17.2+5 (w9) begins: [cpus:6;mem:3] of [cpus:1]"
    )
    assert kind_of("a1: is READY and silent") != kind_of("a1: was told nothing")
