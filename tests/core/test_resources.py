"""Resources: exact arithmetic, grants, and text that may come from anywhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.attributes import parse_constraint
from edgerm_core.errors import ResourceError
from edgerm_core.resources import (
    EMPTY,
    MAX_MILLI,
    Device,
    DeviceRequest,
    Ranges,
    ResourceRequest,
    Resources,
    Shortage,
    count_ranges,
    format_milli,
    grant,
    normal_ranges,
    parse_scalar,
    subtract_scalars,
)

# --- text -------------------------------------------------------------------------------------


def test_all_kinds_are_read() -> None:
    found = Resources.parse("cpus:1.5; mem:512MiB ;ports:[31000-31009,80];zones:{a, b};mem:0.5")
    assert found == Resources(
        {"cpus": 1500, "mem": 512_500},
        {"ports": ((80, 80), (31000, 31009))},
        {"zones": frozenset({"a", "b"})},
    )
    assert str(found) == "cpus:1.5;mem:512.5;ports:[80-80,31000-31009];zones:{a,b}"


@pytest.mark.parametrize(
    ("name", "text", "milli"),
    [
        ("cpus", "1", 1000),
        ("cpus", "0", 0),
        ("cpus", "0.0005000001", 1),
        ("cpus", "1e3", 1_000_000),
        ("cpus", 0.1, 100),
        ("mem", "1GiB", 1_024_000),
        ("mem", "512 KiB", 500),
        ("disk", "1TiB", 1_048_576_000),
        ("mem", "1GB", 953_674),
        ("cpus", str(MAX_MILLI // 1000), MAX_MILLI),
    ],
)
def test_scalars_are_read_to_the_nearest_thousandth(name: str, text: str | float, milli: int) -> None:
    assert parse_scalar(name, text) == milli


@pytest.mark.parametrize(
    "text",
    [
        "cpus",
        "cpus:",
        "cpus:x",
        "cpus:-1",
        "cpus:nan",
        "cpus:inf",
        "cpus:1e999999999",
        "cpus:0.00001",
        "cpus:1e-999999999",
        "cpus:1MiB",
        "CPUs:1",
        "cpus:1000000000001",
        ":1",
        "ports:[1-2",
        "ports:[2-1]",
        "ports:[-1-2]",
        "ports:[a]",
        "ports:[1-9999999999999999]",
        "zones:{a",
        "x" * 33 + ":1",
        "cpus:1..5",
        "cpus:--1",
        "cpus:e",
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ResourceError) as caught:
        Resources.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_table_is_read_like_the_text() -> None:
    table = {"cpus": 1.5, "mem": "1GiB", "ports": ["80", "90-91"], "zones": ["a"]}
    assert Resources.parse(table) == Resources.parse("cpus:1.5;mem:1024;ports:[80,90-91];zones:{a}")
    with pytest.raises(ResourceError, match="is not an amount"):
        Resources.parse({"cpus": True})


NAMES = st.sampled_from(["cpus", "mem", "disk", "gpu", "radio.bytes"])
AMOUNTS = st.integers(1, 10**7)
PIECES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=5
)
RANGES = PIECES.filter(bool).map(normal_ranges)
ELEMENTS = st.frozensets(st.sampled_from("abcdef"), min_size=1)
RESOURCES = st.builds(
    Resources,
    st.dictionaries(NAMES, AMOUNTS, max_size=4),
    st.dictionaries(st.just("ports"), RANGES),
    st.dictionaries(st.just("zones"), ELEMENTS),
    st.dictionaries(st.sampled_from(["cam0", "cam1", "relay"]), st.integers(1, 3)),
)


@settings(max_examples=200, deadline=None)
@given(resources=RESOURCES)
def test_text_and_back(resources: Resources) -> None:
    plain = Resources(resources.scalars, resources.ranges, resources.sets)
    assert Resources.parse(str(plain)) == plain


@settings(max_examples=200, deadline=None)
@given(milli=st.integers(0, MAX_MILLI))
def test_amounts_to_text_and_back(milli: int) -> None:
    assert parse_scalar("cpus", format_milli(milli)) == milli


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("cpusmem:;[]{}-,.019eE \nÄ٣"), max_size=40))
def test_hostile_text_is_read_or_refused(text: str) -> None:
    try:
        found = Resources.parse(text)
    except ResourceError:
        return
    assert Resources.parse(str(found)) == found


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resources({"cpus": 0}),
        lambda: Resources({"cpus": -1}),
        lambda: Resources({"cpus": MAX_MILLI + 1}),
        lambda: Resources(ranges={"ports": ()}),
        lambda: Resources(ranges={"ports": ((3, 4), (1, 2))}),
        lambda: Resources(ranges={"ports": ((1, 2), (3, 4))}),
        lambda: Resources(sets={"zones": frozenset()}),
        lambda: Resources(devices={"cam0": 0}),
        lambda: DeviceRequest("camera", 0),
        lambda: DeviceRequest(""),
        lambda: ResourceRequest({"cpus": -5}),
    ],
)
def test_values_that_make_no_sense_cannot_be_built(make: Any) -> None:
    with pytest.raises(ResourceError):
        make()


# --- arithmetic -------------------------------------------------------------------------------


def disjoint(a: Resources, b: Resources) -> Resources:
    """Return `b` without the ports and zones that `a` has, since nobody can hold the same one twice."""
    return Resources(b.scalars, {}, {}, b.devices) + Resources(ranges=b.ranges, sets=b.sets).minus_at_most(
        a
    )


@settings(max_examples=200, deadline=None)
@given(a=RESOURCES, b=RESOURCES)
def test_adding_and_taking_back_returns_to_the_start(a: Resources, b: Resources) -> None:
    other = disjoint(a, b)
    together = a + other
    assert together.contains(a)
    assert together.contains(other)
    assert together - other == a
    assert together - a == other


@settings(max_examples=200, deadline=None)
@given(a=RESOURCES, b=RESOURCES, c=RESOURCES)
def test_sums_do_not_depend_on_the_order(a: Resources, b: Resources, c: Resources) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + EMPTY == a


@settings(max_examples=200, deadline=None)
@given(a=RESOURCES, b=RESOURCES)
def test_taking_what_is_not_there_is_refused_or_stops_at_zero(a: Resources, b: Resources) -> None:
    rest = a.minus_at_most(b)
    assert a.contains(rest)
    if a.contains(b):
        assert a - b == rest
    else:
        with pytest.raises(ResourceError, match="cannot take"):
            a - b


@settings(max_examples=200, deadline=None)
@given(a=PIECES, b=PIECES)
def test_ranges_are_sets_of_numbers(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    def numbers(pieces: Ranges | list[tuple[int, int]]) -> set[int]:
        return {n for low, high in pieces for n in range(low, high + 1)}

    one, other = normal_ranges(a), normal_ranges(b)
    assert numbers(one) == numbers(a)
    assert count_ranges(one) == len(numbers(a))
    left = Resources(ranges={"p": one} if one else {}).minus_at_most(
        Resources(ranges={"p": other} if other else {})
    )
    assert numbers(left.ranges.get("p", ())) == numbers(a) - numbers(b)
    assert normal_ranges(left.ranges.get("p", ())) == left.ranges.get("p", ())


# --- grants -----------------------------------------------------------------------------------

DEVICES = {
    "cam0": Device("cam0", "camera", 1, {"zoom": 2}),
    "cam1": Device("cam1", "camera", 3, {"zoom": 9}),
    "relay": Device("relay", "relay", 2),
}
REQUESTS = st.builds(
    ResourceRequest,
    st.dictionaries(
        st.sampled_from(["cpus", "mem", "ports", "zones"]), st.sampled_from([500, 1000, 2000, 3000])
    ),
    st.dictionaries(st.just("ports"), RANGES, max_size=1),
    st.dictionaries(st.just("zones"), ELEMENTS, max_size=1),
    st.lists(
        st.builds(
            DeviceRequest,
            st.sampled_from(["camera", "relay", "none"]),
            st.integers(1, 3),
            st.sampled_from([(), (parse_constraint("zoom>=5"),)]),
        ),
        max_size=3,
    ).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(request=REQUESTS, free=RESOURCES)
def test_a_grant_is_contained_in_what_is_free_and_is_what_was_asked_for(
    request: ResourceRequest, free: Resources
) -> None:
    granted = grant(request, free, DEVICES)
    if not isinstance(granted, Resources):
        assert granted
        assert all(isinstance(short, Shortage) and str(short) for short in granted)
        return
    assert free.contains(granted)
    assert (free - granted) + granted == free
    amounts = granted.quantities()
    for device_id, slots in granted.devices.items():
        key = f"device/{DEVICES[device_id].type}"
        amounts[key] = amounts.get(key, 0) + slots * 1000
    assert amounts == request.fair_quantities()
    assert grant(request, free, DEVICES) == granted


def test_the_lowest_ports_and_first_elements_are_taken() -> None:
    free = Resources.parse("ports:[5-6,9-20];zones:{c,a,b}")
    granted = grant(ResourceRequest.parse("ports:3;zones:2"), free, {})
    assert granted == Resources.parse("ports:[5-6,9-9];zones:{a,b}")


def test_a_port_asked_for_by_number_is_not_counted_twice() -> None:
    request = ResourceRequest({"ports": 2000}, {"ports": ((5, 5),)})
    assert grant(request, Resources.parse("ports:[5-7]"), {}) == Resources.parse("ports:[5-7]")
    assert grant(request, Resources.parse("ports:[5-6]"), {}) == [Shortage("ports", "2", "1")]


def test_half_a_port_is_refused() -> None:
    found = grant(ResourceRequest({"ports": 1500}), Resources.parse("ports:[5-7]"), {})
    assert found == [Shortage("ports", "1.5", "only whole ones")]


def test_devices_are_healthy_and_have_a_slot_left() -> None:
    devices = DEVICES | {"cam0": Device("cam0", "camera", 1, healthy=False)}
    free = Resources(devices={"cam0": 1, "cam1": 1, "ghost": 1})
    two = ResourceRequest(devices=(DeviceRequest("camera", 2),))
    assert grant(two, free, devices) == [Shortage("device/camera", "2", "1")]
    one = ResourceRequest(devices=(DeviceRequest("camera"),))
    assert grant(one, free, devices) == Resources(devices={"cam1": 1})


def test_everything_that_is_short_is_named() -> None:
    request = ResourceRequest.parse("cpus:2;mem:64;ports:[1-3]", (DeviceRequest("camera"),))
    found = grant(request, Resources.parse("cpus:1.5;mem:64;ports:[2-2]"), {})
    assert isinstance(found, list)
    assert [str(short) for short in found] == [
        "ports: wants 1,3, has those taken or not there",
        "cpus: wants 2, has 1.5",
        "device/camera: wants 1, has 0",
    ]


# --- the cases from Mesos ---------------------------------------------------------------------

CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "drf" / "cases.json").read_text())["cases"]
    if case["kind"] == "resources-arithmetic"
}
DIFFERENT = {
    "ra-10": "a volume shared by tasks is a device with slots in edgerm: copies are slots, counted apart",
    "ra-11": "edgerm has no revocable resources",
    "ra-13": "shrinking chops agents for quotas, which edgerm does not have",
}


def outcome(op: str, a: Any, b: Any) -> Any:
    """Do what a case asks for; returns text, a truth value or `error`."""
    try:
        left, right = Resources.parse(a), Resources.parse(b or "")
    except ResourceError:
        return "error"
    as_text = {
        "canonical": lambda: left,
        "add": lambda: left + right,
        "subtract": lambda: left.minus_at_most(right),
        "quantities": lambda: Resources(left.quantities()),
        "q_add": lambda: left + right,
        "q_subtract": lambda: Resources(subtract_scalars(left.scalars, right.scalars)),
    }
    if op in as_text:
        return str(as_text[op]())
    if op == "equal":
        return left == right
    if op in ("contains", "q_contains"):
        return left.contains(right)
    assert op == "contains_quantities"
    return Resources(left.quantities()).contains(right)


@pytest.mark.parametrize("case_id", [i for i in CASES if i not in DIFFERENT])
def test_arithmetic_is_that_of_mesos(case_id: str) -> None:
    case = CASES[case_id]
    for op, wanted in zip(case["inputs"]["ops"], case["expected"]["results"], strict=True):
        if "(role" in op["a"]:
            continue  # A reservation for a role, which edgerm does not have.
        assert outcome(op["op"], op["a"], op.get("b")) == wanted, op


def test_copies_of_a_shared_volume_are_slots_of_a_device() -> None:
    for op, wanted in zip(
        CASES["ra-10"]["inputs"]["ops"], CASES["ra-10"]["expected"]["results"], strict=True
    ):
        a, b = (
            Resources(Resources.parse(op[side]["text"]).scalars, devices=op[side]["shared"])
            for side in ("a", "b")
        )
        found = a + b if op["op"] == "add" else a.minus_at_most(b)
        assert found == Resources(Resources.parse(wanted["text"]).scalars, devices=wanted["shared"])


def test_what_differs_is_among_the_cases() -> None:
    assert DIFFERENT.keys() <= CASES.keys()
