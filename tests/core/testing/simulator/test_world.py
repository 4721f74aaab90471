"""Virtual time: order, cancelled timers, streams of luck that do not disturb each other."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator import world as worlds
from edgerm_core.testing.simulator.story import Story
from edgerm_core.testing.simulator.world import Failure, World


def test_things_happen_in_order_of_their_times_and_then_of_their_making() -> None:
    world = World(1, Story())
    seen: list[tuple[str, float]] = []
    world.at(2.0, lambda: seen.append(("late", world.now)))
    world.at(1.0, lambda: seen.append(("first", world.now)))
    world.at(1.0, lambda: seen.append(("second", world.now)))
    world.run_until(5.0)
    assert seen == [("first", 1.0), ("second", 1.0), ("late", 2.0)]
    assert world.now == 5.0


def test_what_is_due_in_the_past_happens_now() -> None:
    world = World(1, Story())
    world.run_until(3.0)
    seen: list[float] = []
    world.at(1.0, lambda: seen.append(world.now))
    world.run_until(3.0)
    assert seen == [3.0]


def test_a_cancelled_timer_does_not_happen() -> None:
    world = World(1, Story())
    seen: list[int] = []
    world.after(1.0, lambda: seen.append(1)).cancel()
    world.run_until(2.0)
    assert seen == []


def test_streams_of_luck_depend_on_seed_and_name_alone() -> None:
    one, same, other = World(1, Story()), World(1, Story()), World(2, Story())
    one.luck("b").random()
    assert one.luck("a").random() == same.luck("a").random()
    assert one.luck("a").random() != one.luck("b").random()
    assert one.luck("a").random() != other.luck("a").random()


def test_a_circle_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "MAX_EVENTS", 100)
    world = World(1, Story())

    def again() -> None:
        world.after(0.0, again)

    again()
    with pytest.raises(Failure, match="circles"):
        world.run_until(1.0)


def test_a_world_may_be_allowed_another_number_of_events() -> None:
    world = World(1, Story(), max_events=3)
    for at in range(4):
        world.at(at, lambda: None)
    with pytest.raises(Failure, match="more than 3 events"):
        world.run_until(10.0)
