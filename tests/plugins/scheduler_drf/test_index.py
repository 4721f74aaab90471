"""The index finds what a look at every agent would find, whatever happened before."""

import random
from collections.abc import Callable, Iterable

import pytest
from edgerm_scheduler_drf import index as index_module
from edgerm_scheduler_drf.index import AgentIndex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgerm_core.ids import AgentId

AMOUNTS = st.dictionaries(st.sampled_from(["cpus", "mem", "gpu"]), st.integers(1, 9), max_size=3)
STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 6)), AMOUNTS, st.integers(0, 5)),
    max_size=60,
)


@pytest.fixture(params=[1, 64])
def neighbours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move few at a time, so that few agents are enough for moving some and not all; or as usual."""
    monkeypatch.setattr(index_module, "NEIGHBOURS", request.param)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, needs=AMOUNTS, hide=st.integers(0, 30))
@pytest.mark.usefixtures("neighbours")
def test_first_and_best_are_those_of_a_full_look(
    steps: list[tuple[int, int | None, dict[str, int], int]], needs: dict[str, int], hide: int
) -> None:
    index = AgentIndex()
    plain: dict[AgentId, tuple[int, dict[str, int], int]] = {}
    for number, capability, amounts, rank in steps:
        agent_id = AgentId(f"a{number:02}")
        index.place({agent_id: capability})
        if capability is None:
            plain.pop(agent_id, None)
        else:
            plain[agent_id] = (capability, amounts, rank)
            index.set(agent_id, amounts, rank)
    order = sorted(plain, key=lambda a: (plain[a][0], a))
    assert index.agents() == order
    hidden = AgentId(f"a{hide:02}")
    if (slot := index.slot(hidden)) is not None:
        index.hidden.add(slot)
    fitting = [
        a for a in order if a != hidden and all(plain[a][1].get(k, 0) >= v for k, v in needs.items())
    ]
    columns = index.columns(sorted(needs.items()))
    first = index.first(columns, 0, None, None)
    assert (None if first is None else index.agent(first)) == (fitting[0] if fitting else None)
    best = index.best(columns, 0, None, None)
    wanted = min(fitting, key=lambda a: (plain[a][2], order.index(a))) if fitting else None
    assert (None if best is None else index.agent(best)) == wanted
    slots = {a: index.slot(a) for a in order}
    assert {a: index.amounts(s) for a, s in slots.items() if s is not None} == {
        a: plain[a][1] for a in order
    }


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 99), st.booleans(), AMOUNTS, st.integers(0, 5)), max_size=60))
def test_neighbours_that_move_take_what_is_known_of_them_along(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[int, bool, dict[str, int], int]]
) -> None:
    """They come between two, so that no gap is ever large enough."""
    monkeypatch.setattr(index_module, "NEIGHBOURS", 1)
    index = AgentIndex()
    names = [AgentId(f"n{n:03}") for n in range(40)]
    index.place(dict.fromkeys(names, 0))
    known: dict[AgentId, tuple[dict[str, int], int]] = {}
    for number, (at, goes, amounts, rank) in enumerate(steps):
        agent_id = names[at % len(names)]
        if goes and agent_id in known:
            del known[agent_id]
            index.set(agent_id, {}, 0)
            index.place({agent_id: None})
            names.remove(agent_id)
            continue
        between = AgentId(f"{agent_id}-{number:02}")
        names.insert(names.index(agent_id) + 1, between)
        index.place({between: 0})
        index.set(between, amounts, rank)
        known[between] = (amounts, rank)
    for agent_id in names:
        slot = index.slot(agent_id)
        assert slot is not None
        assert index.agent(slot) == agent_id
        amounts, rank = known.get(agent_id, ({}, index.rank(slot)))
        assert (index.amounts(slot), index.rank(slot)) == (amounts, rank)
    walked, slot = [], index.first([], 0, None, None)
    while slot is not None:
        walked.append(index.agent(slot))
        slot = index.first([], slot + 1, None, None)
    assert walked == index.agents() == sorted(names)
    needs = index.columns([("cpus", 5)])
    fitting = [agent for agent in index.agents() if known.get(agent, ({}, 0))[0].get("cpus", 0) >= 5]
    for found, wanted in (
        (index.first(needs, 0, None, None), fitting[:1]),
        (index.best(needs, 0, None, None), sorted(fitting, key=lambda agent: known[agent][1])[:1]),
    ):
        assert ([] if found is None else [index.agent(found)]) == wanted


def test_an_agent_that_comes_back_finds_its_slot_and_moves_nobody() -> None:
    index = AgentIndex()
    index.place({AgentId(f"a{n}"): 5 for n in range(9)})
    generation = index.generation
    slots = {a: index.slot(a) for a in index.agents()}
    assert not index.place({AgentId("a4"): None})
    assert index.slot(AgentId("a4")) is None
    assert not index.place({AgentId("a4"): 5})
    assert {a: index.slot(a) for a in index.agents()} == slots
    assert index.generation == generation


def nearly_sorted(names: list[str]) -> list[str]:
    """As they come when hundreds begin at the same time."""
    rng = random.Random(1)
    return [name for _, name in sorted((n + rng.random() * 500, name) for n, name in enumerate(names))]


def shuffled(names: list[str]) -> list[str]:
    random.Random(1).shuffle(names)
    return names


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    "order", [list, list.__reversed__, nearly_sorted, shuffled], ids=lambda f: f.__name__
)
def test_those_that_come_move_few_others_however_many_there_are(
    order: Callable[[list[str]], Iterable[str]], classes: int
) -> None:
    moved = {count: moves_each(list(order(NAMES[:count])), classes) for count in (500, 4000)}
    assert moved[500] < 40
    assert moved[4000] < 40, "with all moved each time it would be hundreds"


NAMES = [f"node-{number:04}" for number in range(4000)]


def moves_each(names: list[str], classes: int) -> float:
    """Let agents of these names come; return how many others moved, for each."""
    index = AgentIndex()
    slots: dict[AgentId, int | None] = {}
    moves = 0
    for number, name in enumerate(names):
        if index.place({AgentId(name): number % classes}):
            before, slots = slots, {agent: index.slot(agent) for agent in index.agents()}
            moves += sum(slots[agent] != slot for agent, slot in before.items())
        slots[AgentId(name)] = index.slot(AgentId(name))
    assert index.agents() == sorted(slots, key=lambda name: (names.index(name) % classes, name))
    return moves / len(names)
