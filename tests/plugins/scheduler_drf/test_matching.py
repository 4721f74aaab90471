"""Which agents suit a demand: the kept answers are those of a look at every agent."""

from __future__ import annotations

import msgspec
from edgerm_scheduler_drf.demand import Demand, demand_key
from edgerm_scheduler_drf.index import AgentIndex
from edgerm_scheduler_drf.matching import MAX_LEVELS, MAX_MATCHES, Facts, Match, Matches, preference_score
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import AttributeValue, Preference, parse_constraint
from edgerm_core.feasibility import suits
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.clusters import ClusterAgent, ClusterTask, task_spec

VALUES = st.sampled_from(["north", "south", "2", "2.0", 2, 2.0, 3, True, "true", "nan", "1e1", 10])
AGENTS = st.dictionaries(
    st.integers(0, 9),
    st.none() | st.tuples(st.sampled_from(["process", "wasm"]), VALUES),
    max_size=6,
)
CONSTRAINTS = st.sampled_from(
    ["zone==north", "zone==2", "zone==2.0", "zone==true", "zone==nan", "zone in 3, south", "zone==10",
     "zone!=north", "zone>=2", "exists zone", "zone not in 2, north", "floor==1"]
)  # fmt: skip


def agent_of(name: str, executor: str, attributes: dict[str, AttributeValue]) -> ClusterAgent:
    info = AgentInfo(AgentId(name), executors=(Fingerprint(executor),), attributes=attributes)
    return ClusterAgent(info)


def spec_of(executor: str, *constraints: str, likes: tuple[tuple[str, float], ...] = ()) -> TaskSpec:
    return msgspec.structs.replace(
        task_spec(executors=[executor]),
        constraints=tuple(map(parse_constraint, constraints)),
        preferences=tuple(Preference(parse_constraint(text), weight) for text, weight in likes),
    )


def demand_of(spec: TaskSpec) -> Demand:
    task = ClusterTask(TaskId(1), FrameworkId("f"), spec)
    return Demand(demand_key(task), task)


def slots_of(index: AgentIndex, level: bytearray) -> set[str]:
    """Who is in a level; all inner nodes must agree with the leaves."""
    for node in range(1, index.size):
        assert level[node] == (level[2 * node] | level[2 * node + 1])
    found = {index.agent(slot) for slot in range(index.size) if level[index.size + slot]}
    return {agent_id for agent_id in found if agent_id is not None}


class Bench:
    """An index, matches on it, and the agents, kept in step."""

    def __init__(self) -> None:
        self.index = AgentIndex()
        self.matches = Matches(self.index)
        self.agents: dict[AgentId, ClusterAgent] = {}

    def put(self, agent: ClusterAgent) -> None:
        self.agents[agent.id] = agent
        self.index.place({agent.id: 1})
        self.matches.agent_changed(agent.id, agent)

    def remove(self, name: str) -> None:
        del self.agents[AgentId(name)]
        self.matches.agent_changed(AgentId(name), None)
        self.index.place({AgentId(name): None})

    def get(self, spec: TaskSpec) -> Match:
        return self.matches.get(demand_of(spec), self.agents)

    def levels(self, spec: TaskSpec) -> list[set[str]]:
        return [slots_of(self.index, level) for level in self.get(spec).levels]


@settings(max_examples=200, deadline=None)
@given(rounds=st.lists(AGENTS, max_size=4), constraints=st.lists(CONSTRAINTS, max_size=2))
def test_match_is_what_suits_after_any_changes(
    rounds: list[dict[int, tuple[str, AttributeValue] | None]], constraints: list[str]
) -> None:
    bench = Bench()
    spec = spec_of("wasm", *constraints)
    for changes in rounds:
        for number, facts in changes.items():
            name = f"a{number}"
            if facts is not None:
                bench.put(agent_of(name, facts[0], {"zone": facts[1]}))
            elif AgentId(name) in bench.agents:
                bench.remove(name)
        expected = {agent_id for agent_id, agent in bench.agents.items() if suits(spec, agent)}
        [level] = bench.levels(spec)
        assert level == expected
        for agent_id in bench.agents:
            slot = bench.index.slot(agent_id)
            assert slot is not None
            assert bench.matches.may_suit(demand_of(spec), slot) == (agent_id in expected)


def test_better_preferences_come_first() -> None:
    bench = Bench()
    for name, floor in (("a", 1), ("b", 2), ("c", 3), ("d", 2)):
        bench.put(agent_of(name, "wasm", {"floor": floor}))
    spec = spec_of("wasm", likes=(("floor>=2", 1.0), ("floor==3", -5.0)))
    assert bench.levels(spec) == [{"b", "d"}, {"a"}, {"c"}]


def test_preferences_are_weighed_again_when_an_agents_facts_change() -> None:
    bench = Bench()
    bench.put(agent_of("a", "wasm", {"floor": 1}))
    bench.put(agent_of("b", "wasm", {"floor": 1}))
    spec = spec_of("wasm", likes=(("floor==2", 1.0),))
    assert bench.levels(spec) == [{"a", "b"}]
    bench.put(agent_of("b", "wasm", {"floor": 2}))
    assert bench.levels(spec) == [{"b"}, {"a"}]


def test_worst_of_very_many_scores_count_as_equal() -> None:
    bench = Bench()
    for number in range(MAX_LEVELS + 3):
        bench.put(agent_of(f"a{number:02}", "wasm", {"floor": number}))
    likes = tuple((f"floor=={number}", float(number)) for number in range(MAX_LEVELS + 3))
    levels = bench.levels(spec_of("wasm", likes=likes))
    assert len(levels) == MAX_LEVELS
    assert levels[0] == {f"a{MAX_LEVELS + 2}"}
    assert levels[-1] == {"a00", "a01", "a02", "a03"}


def test_answers_kept_are_bounded_and_the_same_when_asked_again() -> None:
    bench = Bench()
    bench.put(agent_of("a", "wasm", {"floor": 5}))
    serial = bench.get(spec_of("wasm", "floor==5")).serial
    assert bench.get(spec_of("wasm", "floor==5")).serial == serial
    for number in range(MAX_MATCHES):
        bench.get(spec_of("wasm", f"floor=={1000 + number}"))
    again = bench.get(spec_of("wasm", "floor==5"))
    assert again.serial != serial
    assert slots_of(bench.index, again.levels[0]) == {"a"}


def test_slot_may_suit_while_nothing_is_known() -> None:
    bench = Bench()
    bench.put(agent_of("a", "process", {}))
    slot = bench.index.slot(AgentId("a"))
    assert slot is not None
    demand = demand_of(spec_of("wasm"))
    assert bench.matches.may_suit(demand, slot)
    bench.matches.get(demand, bench.agents)
    assert not bench.matches.may_suit(demand, slot)


def test_pinned_task_looks_at_one_agent_only() -> None:
    agents = {AgentId(f"a{n}"): agent_of(f"a{n}", "wasm", {"host": f"h{n}", "n": n}) for n in range(9)}
    facts = Facts()
    assert list(facts.candidates(spec_of("wasm", "host==h3"), agents)) == ["a3"]
    assert set(facts.candidates(spec_of("wasm", "host in h3, h5", "n>=1"), agents)) == {"a3", "a5"}
    assert list(facts.candidates(spec_of("wasm", "host in h3, h5", "n==5.0"), agents)) == ["a5"]
    assert facts.candidates(spec_of("wasm", "n>=5"), agents) is agents
    facts.update(AgentId("a3"), {"host": "h4"})
    assert list(facts.candidates(spec_of("wasm", "host==h3"), agents)) == []
    assert set(facts.candidates(spec_of("wasm", "host==h4"), agents)) == {"a3", "a4"}
    facts.update(AgentId("a4"), {})
    assert list(facts.candidates(spec_of("wasm", "host==h4"), agents)) == ["a3"]


def test_score_is_the_sum_of_the_weights_that_hold() -> None:
    spec = spec_of("wasm", likes=(("os==linux", 2.5), ("floor>=2", 1.0), ("os==other", 100.0)))
    assert preference_score(spec, agent_of("a", "wasm", {"os": "linux", "floor": 2})) == 3.5
    assert preference_score(spec, agent_of("a", "wasm", {})) == 0.0
