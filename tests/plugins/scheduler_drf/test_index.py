"""The index finds what a look at every agent would find, whatever happened before."""

import pytest
from edgerm_scheduler_drf.index import AgentIndex
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.ids import AgentId

AMOUNTS = st.dictionaries(st.sampled_from(["cpus", "mem", "gpu"]), st.integers(1, 9), max_size=3)
STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 6)), AMOUNTS, st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, needs=AMOUNTS, hide=st.integers(0, 30))
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


@pytest.mark.parametrize(
    ("step", "classes"),
    [(1, 1), (-1, 1), (1, 3), (-1, 3)],
    ids=["up", "down", "up in three", "down in three"],
)
def test_agents_whose_names_are_counted_move_the_others_seldom(step: int, classes: int) -> None:
    """Each move of all costs as much as there are agents."""
    index = AgentIndex()
    names = [f"node-{number:04}" for number in range(1000)][::step]
    moved = sum(index.place({AgentId(name): n % classes}) for n, name in enumerate(names))
    assert moved < 50
    assert index.agents() == sorted(
        map(AgentId, names), key=lambda name: (names.index(name) % classes, name)
    )
