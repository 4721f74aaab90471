"""Which agents suit a demand whatever is free: executors, constraints, and how well preferences hold.

The answer changes only when an agent's static facts do, so it is kept for each distinct question, as
one bit for each node of the index's tree: whether a slot below it suits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgerm_core.attributes import AttributeValue, satisfies
from edgerm_core.feasibility import suits
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import AgentView
from edgerm_core.tasks import TaskSpec
from edgerm_scheduler_drf.demand import Demand, MatchKey
from edgerm_scheduler_drf.index import AgentIndex

MAX_MATCHES: Final = 128
"""Questions whose answer is kept; at 10,000 agents and without preferences one takes 32 KiB."""

MAX_LEVELS: Final = 16
"""Distinct preference scores told apart; the worst beyond that count as equal."""


class Match:
    """Where a demand may go: one set of slots for each preference score, the best first.

    Attributes:
        serial: another one for every match that was ever made.
        levels: for each score, 1 for each node of the tree with a suitable slot below it.
    """

    __slots__ = ("levels", "serial")

    def __init__(self, serial: int, levels: list[bytearray]) -> None:
        self.serial = serial
        self.levels = levels


class Matches:
    """Keeps the matches of the demands seen lately."""

    def __init__(self, index: AgentIndex) -> None:
        self._index = index
        self._matches: dict[MatchKey, Match] = {}
        self._generation = index.generation
        self._facts = Facts()
        self._serial = 0

    def get(self, demand: Demand, agents: Mapping[AgentId, AgentView]) -> Match:
        """Return the demand's match, made now if it is not known."""
        if self._generation != self._index.generation:
            self._matches.clear()
            self._generation = self._index.generation
        match = self._matches.get(demand.match_key)
        if match is None:
            match = self._matches[demand.match_key] = self._make(demand.spec, agents)
            if len(self._matches) > MAX_MATCHES:
                del self._matches[next(iter(self._matches))]
        return match

    def may_suit(self, demand: Demand, slot: int) -> bool:
        """Return whether the slot suits the demand; also true if that is not known just now."""
        match = self._matches.get(demand.match_key)
        if match is None or self._generation != self._index.generation:
            return True
        node = self._index.size + slot
        return any(level[node] for level in match.levels)

    def agent_changed(self, agent_id: AgentId, agent: AgentView | None) -> None:
        """Take note of an agent that came, went (None) or whose static facts changed."""
        self._facts.update(agent_id, agent.attributes if agent else {})
        slot = self._index.slot(agent_id)
        if agent is None or slot is None or self._generation != self._index.generation:
            return  # An agent that is gone has nothing free, whatever its bits say.
        for key in list(self._matches):
            spec = key.spec
            if spec.preferences:
                del self._matches[key]
            else:
                _set_bit(self._matches[key].levels[0], self._index.size + slot, suits(spec, agent))

    def _make(self, spec: TaskSpec, agents: Mapping[AgentId, AgentView]) -> Match:
        by_score: dict[float, list[int]] = {}
        for agent_id in self._facts.candidates(spec, agents):
            slot = self._index.slot(agent_id)
            if slot is not None and suits(spec, agents[agent_id]):
                by_score.setdefault(preference_score(spec, agents[agent_id]), []).append(slot)
        levels: list[bytearray] = []
        for score in sorted(by_score, reverse=True):
            if len(levels) < MAX_LEVELS:
                levels.append(bytearray(2 * self._index.size))
            for slot in by_score[score]:
                _set_bit(levels[-1], self._index.size + slot, True)
        self._serial += 1
        return Match(self._serial, levels or [bytearray(2 * self._index.size)])


class Facts:
    """Finds agents by the value of an attribute, for the attributes that constraints have asked about.

    A task that is pinned to one machine should not cost a look at all of them.
    """

    def __init__(self) -> None:
        self._by_value: dict[str, dict[str | float, set[AgentId]]] = {}
        self._values: dict[str, dict[AgentId, str | float]] = {}

    def update(self, agent_id: AgentId, attributes: Mapping[str, AttributeValue]) -> None:
        """Set the agent's attributes; none: it is gone."""
        for name, values in self._values.items():
            old = values.pop(agent_id, None)
            if old is not None:
                self._by_value[name][old].discard(agent_id)
            if name in attributes:
                self._add(name, agent_id, attributes[name])

    def candidates(self, spec: TaskSpec, agents: Mapping[AgentId, AgentView]) -> Iterable[AgentId]:
        """Return agents among which all are that satisfy the spec's constraints."""
        best: set[AgentId] | None = None
        for constraint in spec.constraints:
            if constraint.operator == "==":
                wanted = [constraint.value]
            elif constraint.operator == "in":
                wanted = [item.strip() for item in constraint.value.split(",")]
            else:
                continue
            if constraint.attribute not in self._by_value:
                self._learn(constraint.attribute, agents)
            by_value = self._by_value[constraint.attribute]
            found = set().union(*(by_value.get(_canonical(value), set()) for value in wanted))
            if best is None or len(found) < len(best):
                best = found
        return agents if best is None else [agent_id for agent_id in best if agent_id in agents]

    def _learn(self, name: str, agents: Mapping[AgentId, AgentView]) -> None:
        self._by_value[name] = {}
        self._values[name] = {}
        for agent_id, agent in agents.items():
            if name in agent.attributes:
                self._add(name, agent_id, agent.attributes[name])

    def _add(self, name: str, agent_id: AgentId, value: AttributeValue) -> None:
        key = _canonical(value)
        self._values[name][agent_id] = key
        self._by_value[name].setdefault(key, set()).add(agent_id)


def preference_score(spec: TaskSpec, agent: AgentView) -> float:
    """Return the sum of the weights of the preferences that hold on the agent."""
    return sum((p.weight for p in spec.preferences if satisfies(p.constraint, agent.attributes)), start=0.0)


def _canonical(value: AttributeValue) -> str | float:
    """Return what is the same for all values that `==` calls equal: numbers compare as numbers."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return text if number != number else number


def _set_bit(bits: bytearray, node: int, value: bool) -> None:
    bits[node] = value
    node >>= 1
    while node:
        bit = bits[2 * node] | bits[2 * node + 1]
        if bits[node] == bit:
            return
        bits[node] = bit
        node >>= 1
