"""Finds the agent for a demand: one that suits and has enough, by preference, then by rank.

With `pack`, agents are filled in order of capability and then id: first fit. With `spread` the least
loaded agent of the smallest computing class is taken. Either way no search looks twice at slots before
its `floor`: nothing fitted there, and nothing can until something is freed, which the index logs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from edgerm_core.ids import AgentId
from edgerm_core.interfaces import AgentView
from edgerm_scheduler_drf.demand import Demand
from edgerm_scheduler_drf.index import AgentIndex, Columns
from edgerm_scheduler_drf.matching import Matches

Accept = Callable[[int], bool]


class _Search:
    """How far the search for one demand has come, on each preference level."""

    __slots__ = ("floors", "generation", "read", "revisit", "serial")

    def __init__(self, serial: int, generation: int, levels: int, read: int) -> None:
        self.serial = serial
        self.generation = generation
        self.read = read
        self.floors = [0] * levels
        self.revisit: list[list[int]] = [[] for _ in range(levels)]


class Finder:
    """Searches the index for demands.

    Parameters:
        index: what is free where.
        matches: which agents suit.
        spread: whether load is spread instead of packed.
    """

    def __init__(self, index: AgentIndex, matches: Matches, spread: bool) -> None:
        self._index = index
        self._matches = matches
        self._spread = spread
        self._searches: dict[Demand, _Search] = {}

    def forget(self, demand: Demand) -> None:
        """Nobody asks for it any more."""
        self._searches.pop(demand, None)

    def find(
        self, demand: Demand, agents: Mapping[AgentId, AgentView], accept: Accept | None
    ) -> int | None:
        """Return the slot of the agent to use; None if the demand fits nowhere.

        Parameters:
            accept: exact check of a slot for demands that amounts do not say all of; None: not needed.
        """
        index = self._index
        needs = index.columns(demand.needs)
        match = self._matches.get(demand, agents)
        skip = {slot for agent_id in demand.avoid if (slot := index.slot(agent_id)) is not None}
        check = _without(skip, accept) if skip else accept
        search = self._search(demand, match.serial, len(match.levels))
        find = self._roomiest if self._spread else self._first
        for number, level in enumerate(match.levels):
            if (found := find(search, number, needs, level, check)) is not None:
                return found
        for level in match.levels:
            for slot in sorted(skip):
                if level[index.size + slot] and index.has(slot, needs) and (accept is None or accept(slot)):
                    return slot
        return None

    def _first(
        self, search: _Search, number: int, needs: Columns, level: bytearray, accept: Accept | None
    ) -> int | None:
        index, revisit = self._index, search.revisit[number]
        while revisit:
            slot = revisit[0]
            if level[index.size + slot] and index.has(slot, needs) and (accept is None or accept(slot)):
                return slot
            heapq.heappop(revisit)
        found = index.first(needs, search.floors[number], level, accept)
        search.floors[number] = index.size if found is None else found
        return found

    def _roomiest(
        self, search: _Search, number: int, needs: Columns, level: bytearray, accept: Accept | None
    ) -> int | None:
        index = self._index
        search.revisit[number] = fitting = [
            slot
            for slot in search.revisit[number]
            if level[index.size + slot] and index.has(slot, needs) and (accept is None or accept(slot))
        ]
        if fitting:  # All of them are of smaller classes than those from the floor on.
            return min(fitting, key=lambda slot: (index.rank(slot), slot))
        found = index.best(needs, search.floors[number], level, accept)
        search.floors[number] = index.size if found is None else index.class_start(found)
        return found

    def _search(self, demand: Demand, serial: int, levels: int) -> _Search:
        index = self._index
        search = self._searches.get(demand)
        end = index.growth_base + len(index.growth)
        if (
            search is None
            or search.serial != serial
            or search.generation != index.generation
            or search.read < index.growth_base
        ):
            search = self._searches[demand] = _Search(serial, index.generation, levels, end)
        elif search.read < end:
            for slot in set(index.growth[search.read - index.growth_base :]):
                for floor, revisit in zip(search.floors, search.revisit, strict=True):
                    if slot < floor:
                        heapq.heappush(revisit, slot)
            search.read = end
            if max(map(len, search.revisit)) > index.size:  # Starting anew is cheaper than so many.
                search = self._searches[demand] = _Search(serial, index.generation, levels, end)
        return search


def _without(skip: set[int], accept: Accept | None) -> Accept:
    return lambda slot: slot not in skip and (accept is None or accept(slot))
