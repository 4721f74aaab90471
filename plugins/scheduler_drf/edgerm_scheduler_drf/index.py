"""Where is something free: a segment tree over the agents, in the order in which they are filled.

Agents stand in slots, ordered by capability and then id. For each resource name a column holds what is
free in each slot, and above that, in every node of a binary tree, the most that any slot below it has.
The first slot that has enough of several resources is found by walking down from the left and turning
back where a maximum is too small: logarithmic as long as one agent's amounts make the maxima, and never
more than once over all agents.

Changes are cheap too: an amount that shrinks or grows is carried upwards until a maximum stays the same.
Slots are handed out with gaps, so that agents can come without others moving. Where a gap has been used up
the neighbours move, as few as make room, and only where there is too little of it altogether all of them
(a packed-memory array: Bender, Demaine, Farach-Colton, Cache-Oblivious B-Trees, 2000).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgerm_core.ids import AgentId

Columns = Sequence[tuple[list[int], int]]
"""Columns of the resources that are asked for, each with the amount."""

MAX_GROWTH: Final = 1 << 16
"""Entries of the growth log; whoever has not read it for longer starts anew."""

NEIGHBOURS: Final = 64
"""So many on either side move at least: moving voids what others remember of slots."""

_FAR: Final = 1 << 62


class AgentIndex:
    """Free amounts by agent, searchable. All amounts are in 1/1000.

    Attributes:
        generation: grows when agents move to other slots: whatever remembers slots is void then.
        size: number of slots.
        growth: slots where something became free or other facts changed, oldest first.
        growth_base: how many entries the log has already dropped from its start.
        hidden: slots that no search finds.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.size = 1
        self.growth: list[int] = []
        self.growth_base = 0
        self.hidden: set[int] = set()
        self._columns: dict[str, list[int]] = {}
        self._zero: list[int] = [0, 0]
        self._rank: list[int] = [_FAR, _FAR]
        self._order: list[tuple[int, AgentId]] = []
        self._slots: dict[tuple[int, AgentId], int] = {}
        self._keys: dict[AgentId, tuple[int, AgentId]] = {}
        #: Who came last, by capability: names are often counted up, so the next one comes beside it.
        self._latest: dict[int, AgentId] = {}
        self._agents: list[AgentId | None] = [None]

    def slot(self, agent_id: AgentId) -> int | None:
        """Return where the agent stands; None if it is not here."""
        key = self._keys.get(agent_id)
        return None if key is None else self._slots[key]

    def agent(self, slot: int) -> AgentId | None:
        """Return who stands in the slot."""
        return self._agents[slot]

    def agents(self) -> list[AgentId]:
        """Return all agents in order."""
        return [key[1] for key in self._order if self._keys.get(key[1]) == key]

    def place(self, capabilities: Mapping[AgentId, int | None]) -> bool:
        """Let agents come (with their capability) and go (with None). Returns whether slots moved.

        Agents that came, or were moved by it, have nothing free until `set` says what.
        """
        hidden = [self._agents[slot] for slot in self.hidden]
        coming: list[tuple[int, AgentId]] = []
        for agent_id, capability in capabilities.items():
            known = self._keys.get(agent_id)
            if known is not None and known[0] != capability:
                self.set(agent_id, {}, _FAR)
                self._agents[self._slots[known]] = None
                del self._keys[agent_id]
                known = None
            if capability is not None and known is None:
                coming.append((capability, agent_id))
        moved = False
        for key in coming:
            if not self._squeeze_in(key):
                moved = True
                # Of many that come at once, moving all is less than moving the neighbours of each.
                if 8 * len(coming) > len(self._order) or not self._make_room(key):
                    self._rebuild(coming)
                    break
        self.hidden = {self._slots[self._keys[agent]] for agent in hidden if agent in self._keys}
        return moved

    def columns(self, needs: Sequence[tuple[str, int]]) -> Columns:
        """Return the columns to search, to be used before the next `place`."""
        return [(self._columns.get(name, self._zero), milli) for name, milli in needs]

    def has(self, slot: int, needs: Columns) -> bool:
        """Return whether the slot may be used and has that much of everything asked for."""
        leaf = self.size + slot
        return self._open(slot) and all(column[leaf] >= milli for column, milli in needs)

    def amounts(self, slot: int) -> dict[str, int]:
        """Return what is free in the slot, by name."""
        leaf = self.size + slot
        return {name: column[leaf] for name, column in self._columns.items() if column[leaf]}

    def set(self, agent_id: AgentId, amounts: Mapping[str, int], rank: int) -> bool:
        """Set what is free on the agent and its rank for `best`; returns whether any amount grew."""
        leaf = self.size + self._slots[self._keys[agent_id]]
        grew = False
        for name in amounts:
            if name not in self._columns:
                self._columns[name] = [0] * (2 * self.size)
        for name, column in self._columns.items():
            milli = amounts.get(name, 0)
            if column[leaf] != milli:
                grew = grew or milli > column[leaf]
                _carry_most(column, leaf, milli)
        self.set_rank(leaf - self.size, rank)
        return grew

    def set_rank(self, slot: int, rank: int) -> None:
        """Set the rank of a slot for `best`; the least is the best."""
        leaf = self.size + slot
        if self._rank[leaf] != rank:
            _carry_least(self._rank, leaf, rank)

    def take(self, slot: int, needs: Columns) -> None:
        """Take amounts, which must be there, out of the slot."""
        leaf = self.size + slot
        for column, milli in needs:
            _carry_most(column, leaf, column[leaf] - milli)

    def note_growth(self, slot: int) -> None:
        """Log that something became free or other facts changed in the slot."""
        if len(self.growth) >= MAX_GROWTH:
            self.growth_base += len(self.growth)
            self.growth.clear()
        self.growth.append(slot)

    def first(
        self, needs: Columns, start: int, allowed: bytearray | None, accept: Callable[[int], bool] | None
    ) -> int | None:
        """Return the first slot from `start` on that has enough, is allowed, and is accepted.

        Parameters:
            allowed: 1 for each node of the tree with an allowed slot below it; None: all are.
            accept: what amounts cannot say, asked for the slots that have enough.
        """
        size = self.size
        if start >= size:
            return None
        stack = self._from(start)
        stack.reverse()
        while stack:
            node = stack.pop()
            if allowed is not None and not allowed[node]:
                continue
            for column, milli in needs:
                if column[node] < milli:
                    break
            else:
                if node < size:
                    stack.append(2 * node + 1)
                    stack.append(2 * node)
                elif self._open(node - size) and (accept is None or accept(node - size)):
                    return node - size
        return None

    def best(
        self, needs: Columns, start: int, allowed: bytearray | None, accept: Callable[[int], bool] | None
    ) -> int | None:
        """Return the slot of the least rank from `start` on that has enough, is allowed and accepted.

        Of several it is the first one, so that the choice does not depend on who came when.
        """
        size, rank = self.size, self._rank
        if start >= size:
            return None
        # Of equal ranks what has its first leaf further left: down to that one, before any other is opened.
        heap = [(rank[node], self._first_leaf(node), node) for node in self._from(start)]
        heapq.heapify(heap)
        while heap:
            _, _, node = heapq.heappop(heap)
            if allowed is not None and not allowed[node]:
                continue
            for column, milli in needs:
                if column[node] < milli:
                    break
            else:
                if node < size:
                    for child in (2 * node, 2 * node + 1):
                        heapq.heappush(heap, (rank[child], self._first_leaf(child), child))
                elif self._open(node - size) and (accept is None or accept(node - size)):
                    return node - size
        return None

    def rank(self, slot: int) -> int:
        """Return the rank of a slot."""
        return self._rank[self.size + slot]

    def class_start(self, slot: int) -> int:
        """Return the first slot of agents whose capability has as many bits as that of this one."""
        agent_id = self._agents[slot]
        assert agent_id is not None
        bits = self._keys[agent_id][0].bit_length()
        at = bisect_left(self._order, (1 << (bits - 1) if bits else 0, AgentId("")))
        return self._slots[self._order[at]]

    def _from(self, start: int) -> list[int]:
        """Return the nodes that together cover all slots from `start` on, first to last."""
        node = self.size + start
        nodes = [node]
        while node > 1:
            if not node & 1:
                nodes.append(node + 1)
            node >>= 1
        return nodes

    def _first_leaf(self, node: int) -> int:
        return node << (self.size.bit_length() - node.bit_length())

    def _open(self, slot: int) -> bool:
        return self._agents[slot] is not None and slot not in self.hidden

    def _squeeze_in(self, key: tuple[int, AgentId]) -> bool:
        """Find a slot between the neighbours; an agent that comes back finds its old one."""
        slot = self._slots.get(key)
        if slot is None:
            at = bisect_left(self._order, key)
            low = self._slots[self._order[at - 1]] if at else -1
            high = self._slots[self._order[at]] if at < len(self._order) else self.size
            if high - low < 2:
                return False
            step, latest = min(2, (high - low) // 2), self._latest.get(key[0])
            if at == len(self._order) or (at and self._order[at - 1] == (key[0], latest)):
                slot = low + step
            elif self._order[at] == (key[0], latest):
                slot = high - step
            else:
                slot = (low + high) // 2
            insort(self._order, key)
            self._slots[key] = slot
            self._latest[key[0]] = key[1]
        self._keys[key[1]] = key
        self._agents[slot] = key[1]
        return True

    def _make_room(self, key: tuple[int, AgentId]) -> bool:
        """Move neighbours so that the key gets a slot; return whether there was enough room for that.

        Windows around it are tried, each with twice the agents of the one before, until one is less than
        half full: the larger it is, the emptier it has to be, so that one which has just been spread has
        room for as many as it took to fill it. An eighth of its free slots are left on either side of the
        key, for those that are counted up or down from it; the others are left between all.
        """
        order, slots, count, factor = self._order, self._slots, NEIGHBOURS, 2.0
        at = bisect_left(order, key)
        while True:
            first, last = max(0, at - count), min(len(order), at + count)
            low = slots[order[first - 1]] + 1 if first else 0
            high = slots[order[last]] if last < len(order) else self.size
            if high - low >= factor * (last - first + 1):
                break
            if last - first == len(order):
                return False
            count, factor = 2 * count, factor + 0.1
        # Who has gone is forgotten.
        before = [each for each in order[first:at] if self._keys.get(each[1]) == each]
        after = [each for each in order[at:last] if self._keys.get(each[1]) == each]
        here = [*before, key, *after]
        free = high - low - len(here)
        beside = free // 8
        between = free - 2 * beside
        targets = {
            each: low + n + between * n // len(here) + beside * ((n >= len(before)) + (n > len(before)))
            for n, each in enumerate(here)
        }
        moves = [(self.size + slots[each], self.size + targets[each]) for each in (*before, *after)]
        for column in self._columns.values():
            _move(column, moves, 0)
            _refresh_most(column, self.size + low, self.size + high - 1)
        _move(self._rank, moves, _FAR)
        _refresh_least(self._rank, self.size + low, self.size + high - 1)
        for each in order[first:last]:
            self._agents[slots.pop(each)] = None
        slots.update(targets)
        order[first:last] = here
        self._keys[key[1]] = key
        self._latest[key[0]] = key[1]
        for each in here:
            self._agents[slots[each]] = each[1]
        self._forget_slots()
        return True

    def _forget_slots(self) -> None:
        self.generation += 1
        self.growth.clear()
        self.growth_base = 0

    def _rebuild(self, coming: Sequence[tuple[int, AgentId]]) -> None:
        """Move everybody to a fresh tree that is at most a third full; who has gone is forgotten."""
        new = set(coming)
        self._latest.update(coming)
        old = {key: self.size + self._slots[key] for key in self._keys.values() if key not in new}
        here = sorted({*self._keys.values(), *coming})
        old_columns, old_rank = self._columns, self._rank
        self._forget_slots()
        self.size = 1 << (3 * len(here)).bit_length()
        self._order = here
        self._slots = self._spread(here)
        self._keys = {key[1]: key for key in here}
        self._agents = [None] * self.size
        for key, slot in self._slots.items():
            self._agents[slot] = key[1]
        moves = [(old[key], self.size + self._slots[key]) for key in here if key in old]
        self._zero = [0] * (2 * self.size)
        self._columns = {}
        for name, column in old_columns.items():
            fresh = [0] * (2 * self.size)
            for source, target in moves:
                fresh[target] = column[source]
            _refresh_most(fresh, self.size, 2 * self.size - 1)
            if fresh[1]:
                self._columns[name] = fresh
        self._rank = [_FAR] * (2 * self.size)
        for source, target in moves:
            self._rank[target] = old_rank[source]
        _refresh_least(self._rank, self.size, 2 * self.size - 1)

    def _spread(self, here: Sequence[tuple[int, AgentId]]) -> dict[tuple[int, AgentId], int]:
        """Return a slot for each, in their order: at equal distances, but room around who came last."""
        present = set(here)
        self._latest = {
            capability: agent_id
            for capability, agent_id in self._latest.items()
            if (capability, agent_id) in present
        }
        room = self.size // 8 // max(1, len(self._latest))
        stride = (self.size - 2 * room * len(self._latest)) // (len(here) + 1)
        slots: dict[tuple[int, AgentId], int] = {}
        slot = 0
        for key in here:
            beside = room if self._latest.get(key[0]) == key[1] else 0
            slot += beside
            slots[key] = slot
            slot += stride + beside
        return slots


def _move(column: list[int], moves: Sequence[tuple[int, int]], empty: int) -> None:
    amounts = [column[source] for source, _ in moves]
    for source, _ in moves:
        column[source] = empty
    for (_, target), amount in zip(moves, amounts, strict=True):
        column[target] = amount


def _refresh_most(column: list[int], first: int, last: int) -> None:
    """Work out every node above these leaves."""
    while first > 1:
        first, last = first >> 1, last >> 1
        for node in range(first, last + 1):
            left, right = column[2 * node], column[2 * node + 1]
            column[node] = left if left > right else right


def _refresh_least(column: list[int], first: int, last: int) -> None:
    """Work out every node above these leaves."""
    while first > 1:
        first, last = first >> 1, last >> 1
        for node in range(first, last + 1):
            left, right = column[2 * node], column[2 * node + 1]
            column[node] = left if left < right else right


def _carry_most(column: list[int], node: int, value: int) -> None:
    column[node] = value
    node >>= 1
    while node:
        left, right = column[2 * node], column[2 * node + 1]
        most = left if left > right else right
        if column[node] == most:
            return
        column[node] = most
        node >>= 1


def _carry_least(column: list[int], node: int, value: int) -> None:
    column[node] = value
    node >>= 1
    while node:
        left, right = column[2 * node], column[2 * node + 1]
        least = left if left < right else right
        if column[node] == least:
            return
        column[node] = least
        node >>= 1
