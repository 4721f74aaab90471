"""Finding an agent for a demand, again and again while amounts change."""

from __future__ import annotations

import msgspec
import pytest
from edgerm_scheduler_drf.demand import TASKS, Demand, demand_key
from edgerm_scheduler_drf.finder import Finder
from edgerm_scheduler_drf.index import AgentIndex
from edgerm_scheduler_drf.matching import Matches
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import Preference, parse_constraint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.testing.clusters import ClusterAgent, ClusterTask, task_spec

CAPABILITIES = (3, 3, 5, 9, 9)
"""Of the agents a0 to a4: three computing classes."""


def make_demand(cpus: int = 1, *avoid: str, likes: str = "") -> Demand:
    spec = task_spec(f"cpus:{cpus}", executors=["wasm"])
    if likes:
        spec = msgspec.structs.replace(spec, preferences=(Preference(parse_constraint(likes), 1.0),))
    task = ClusterTask(TaskId(1), FrameworkId("f"), spec)
    task.avoid = frozenset(map(AgentId, avoid))
    return Demand(demand_key(task), task)


class Bench:
    """Agents a0 to a4 with the attribute `n`, and a finder on their index."""

    def __init__(self, spread: bool = False) -> None:
        self.index = AgentIndex()
        matches = Matches(self.index)
        self.finder = Finder(self.index, matches, spread)
        self.agents: dict[AgentId, ClusterAgent] = {}
        self.free: dict[str, tuple[int, int]] = {}
        self.index.place({AgentId(f"a{n}"): capability for n, capability in enumerate(CAPABILITIES)})
        for n in range(len(CAPABILITIES)):
            info = AgentInfo(AgentId(f"a{n}"), executors=(Fingerprint("wasm"),), attributes={"n": n})
            self.agents[info.id] = ClusterAgent(info)
            matches.agent_changed(info.id, self.agents[info.id])

    def set(self, n: int, cpus: int, load: int = 0) -> None:
        """Set what is free on an agent and how loaded it is."""
        agent_id = AgentId(f"a{n}")
        # Larger classes rank behind smaller ones, whatever their load.
        rank = CAPABILITIES[n].bit_length() * 100 + load
        self.free[agent_id] = (cpus, rank)
        if self.index.set(agent_id, {TASKS: 9, "cpus": cpus * 1000}, rank):
            slot = self.index.slot(agent_id)
            assert slot is not None
            self.index.note_growth(slot)

    def find(self, demand: Demand, *refused: str) -> str | None:
        def accept(slot: int) -> bool:
            return self.index.agent(slot) not in refused

        slot = self.finder.find(demand, self.agents, accept if refused else None)
        return None if slot is None else self.index.agent(slot)


@settings(max_examples=200, deadline=None)
@given(
    spread=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=40
    ),
)
def test_every_search_finds_what_a_full_look_would(
    spread: bool, steps: list[tuple[int, int, int, bool]]
) -> None:
    bench = Bench(spread)
    for n in range(len(CAPABILITIES)):
        bench.set(n, 0)
    demands = [make_demand(1), make_demand(2), make_demand(1, "a0", "a3")]
    for n, cpus, load, search in steps:
        # What a search has given away it takes from the index; only then does a rank change.
        if bench.free[f"a{n}"][0] != cpus or not spread:
            bench.set(n, cpus, load)
        if not search:
            continue
        for demand in demands:
            enough = [a for a, (free, _) in bench.free.items() if free * 1000 >= demand.amounts["cpus"]]
            order = sorted(enough, key=lambda a: (bench.free[a][1] if spread else 0, a))
            wanted = [a for a in order if a not in demand.avoid] or sorted(enough)
            assert bench.find(demand) == (wanted[0] if wanted else None)


@pytest.mark.parametrize("spread", [False, True])
def test_small_machines_are_used_before_large_ones(spread: bool) -> None:
    bench = Bench(spread)
    for n, load in enumerate((9, 1, 0, 0, 0)):
        bench.set(n, 1, load)
    demand = make_demand()
    found = []
    while (agent := bench.find(demand)) is not None:
        found.append(agent)
        bench.set(int(agent[1:]), 0, 50)
    assert found == (["a1", "a0"] if spread else ["a0", "a1"]) + ["a2", "a3", "a4"]


def test_preferred_agents_come_before_smaller_ones() -> None:
    bench = Bench()
    for n in range(5):
        bench.set(n, 1)
    demand = make_demand(likes="n>=3")
    assert bench.find(demand) == "a3"
    bench.set(3, 0)
    bench.set(4, 0)
    assert bench.find(demand) == "a0"
    bench.set(4, 1)
    assert bench.find(demand) == "a4"


def test_avoided_agent_is_better_than_none() -> None:
    bench = Bench()
    for n in range(5):
        bench.set(n, 0)
    bench.set(0, 1)
    bench.set(4, 1)
    demand = make_demand(1, "a0")
    assert bench.find(demand) == "a4"
    bench.set(4, 0)
    assert bench.find(demand) == "a0"
    assert bench.find(demand, "a0") is None


def test_agent_that_is_not_accepted_is_passed_over() -> None:
    bench = Bench()
    for n in range(5):
        bench.set(n, 1)
    assert bench.find(make_demand(), "a0", "a1") == "a2"


def test_forgotten_search_starts_anew() -> None:
    bench = Bench()
    for n in range(5):
        bench.set(n, 0)
    demand = make_demand()
    assert bench.find(demand) is None
    # Nothing is logged: only a search without a past can see it.
    bench.index.set(AgentId("a2"), {TASKS: 9, "cpus": 1000}, 0)
    assert bench.find(demand) is None
    bench.finder.forget(demand)
    assert bench.find(demand) == "a2"
