"""How agents are ranked."""

from __future__ import annotations

import pytest
from edgerm_scheduler_drf.scoring import (
    ROOM_ONE,
    WORTH_CPUS,
    WORTH_MEM,
    capability,
    computing_class,
    room,
    worth_offering,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.resources import Resources


@pytest.mark.parametrize(
    ("totals", "milli"),
    [
        ("cpus:4", 4000),
        ("cpus:4;mem:4096", 4000),
        ("cpus:4;mem:8192", 8000),
        ("mem:512", 500),
        ("disk:1000000;gpu:8", 0),
        ("", 0),
    ],
)
def test_capability_is_cpus_or_the_memory_that_weighs_as_much(totals: str, milli: int) -> None:
    assert capability(Resources.parse(totals)) == milli


@settings(max_examples=100, deadline=None)
@given(milli=st.integers(1, 10**9))
def test_class_is_the_power_of_two_above_the_capability(milli: int) -> None:
    number = computing_class(Resources({"cpus": milli}))
    assert 1 << (number - 1) <= milli < 1 << number


def test_sensor_node_gateway_and_server_are_of_different_classes() -> None:
    classes = [computing_class(Resources.parse(f"cpus:{cpus}")) for cpus in (0.1, 4, 64)]
    assert classes == sorted(set(classes))


@settings(max_examples=100, deadline=None)
@given(
    totals=st.dictionaries(st.sampled_from(["cpus", "mem", "gpu"]), st.integers(1, 10**12), max_size=3),
    parts=st.lists(st.fractions(0, 1), min_size=3, max_size=3),
)
def test_room_is_that_of_the_scarcest_scalar(totals: dict[str, int], parts: list[object]) -> None:
    free = {
        name: int(total * part)  # type: ignore[operator]
        for (name, total), part in zip(totals.items(), parts, strict=False)
    }
    found = room(free, Resources(totals))
    assert found == min((free[name] * ROOM_ONE // totals[name] for name in totals), default=ROOM_ONE)
    assert 0 <= found <= ROOM_ONE


def test_room_of_an_empty_and_of_a_full_agent() -> None:
    totals = Resources.parse("cpus:4;mem:512;ports:[1-9]")
    assert room(totals.quantities(), totals) == ROOM_ONE
    assert room({"cpus": 4000}, totals) == 0


@pytest.mark.parametrize(
    ("free", "worth"),
    [
        (Resources({"cpus": WORTH_CPUS}), True),
        (Resources({"cpus": WORTH_CPUS - 1, "mem": WORTH_MEM - 1, "disk": 10**9}), False),
        (Resources({"mem": WORTH_MEM}), True),
        (Resources(devices={"cam0": 1}), True),
        (Resources(ranges={"ports": ((1, 9),)}), False),
        (Resources(), False),
    ],
)
def test_offer_below_both_minima_is_not_worth_sending(free: Resources, worth: bool) -> None:
    assert worth_offering(free, Resources.parse("cpus:4;mem:512;disk:1000000;ports:[1-9]")) is worth


def test_agent_without_cpus_and_memory_is_worth_whatever_it_has() -> None:
    totals = Resources.parse("radio:5")
    assert worth_offering(Resources.parse("radio:0.001"), totals)
    assert not worth_offering(Resources(), totals)
