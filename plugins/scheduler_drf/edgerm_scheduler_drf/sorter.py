"""Who is served next: a tree of roles, ordered by weighted dominant share.

Siblings are ordered by (weighted dominant share of their whole subtree, number of allocations, name),
as in Mesos's DRF sorter; the order of all clients is the pre-order walk. A client that also has
children competes with them as the virtual leaf `.` of weight 1.

The sorter is made for serving many times in a row. `start` puts the clients that want something into
one heap per node; `lowest` says whose turn it is; then either `charge` says what it got, which moves it
and its ancestors back in their heaps, or `retire` says that there is nothing for it in this round. All
other shares stay as they are meanwhile, so only the path to the served client needs sifting.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from edgerm_scheduler_drf.shares import Scale, ShareKey

Path = tuple[str, ...]
"""Names from the top of the tree down to a role or client."""

_ONE = Fraction(1)


class _Node:
    __slots__ = (
        "allocations",
        "amounts",
        "children",
        "dominant",
        "factor",
        "heap",
        "name",
        "parent",
        "path",
    )

    def __init__(self, path: Path, parent: _Node | None) -> None:
        self.path = path
        self.name = path[-1] if path else ""
        self.parent = parent
        self.children: dict[str, _Node] = {}
        self.amounts: dict[str, int] = {}
        self.allocations = 0
        self.dominant = 0
        self.factor: ShareKey = 1
        self.heap: list[tuple[ShareKey, int, str, _Node]] = []

    def entry(self) -> tuple[ShareKey, int, str, _Node]:
        return (self.dominant * self.factor, self.allocations, self.name, self)


class Sorter:
    """Orders clients by weighted dominant share.

    Parameters:
        exclude: names of resources that fairness does not look at.
    """

    def __init__(self, exclude: Iterable[str] = ()) -> None:
        self._exclude = frozenset(exclude)
        self._root = _Node((), None)
        self._leaves: dict[Path, _Node] = {}
        self._weights: dict[Path, Fraction] = {}
        self._totals: dict[str, int] = {}
        self._stale = True
        self._scale = Scale({})

    def set_totals(self, totals: Mapping[str, int]) -> None:
        """Take over what the cluster has, by name in 1/1000."""
        if self._totals != totals:
            self._totals = dict(totals)
            self._stale = True

    def set_weight(self, path: Path, weight: Fraction) -> None:
        """Set the weight of a role or client among its siblings; it need not be there yet."""
        assert weight > 0
        if self._weights.get(path, _ONE) != weight:
            self._weights[path] = weight
            self._stale = True

    def put(self, path: Path, amounts: Mapping[str, int], allocations: int) -> None:
        """Add the client, or set what it holds now.

        Parameters:
            amounts: by name in 1/1000.
            allocations: how many; breaks ties between equal shares.
        """
        leaf = self._leaves.get(path)
        if leaf is None:
            leaf = self._leaves[path] = self._add(path)
        added = {name: milli - leaf.amounts.get(name, 0) for name, milli in amounts.items()}
        added.update((name, -milli) for name, milli in leaf.amounts.items() if name not in amounts)
        self._change(leaf, {name: milli for name, milli in added.items() if milli}, allocations)

    def remove(self, path: Path) -> None:
        """Forget the client and what it holds. Unknown clients are ignored."""
        leaf = self._leaves.pop(path, None)
        if leaf is None:
            return
        self._change(leaf, {name: -milli for name, milli in leaf.amounts.items()}, 0)
        if leaf.path == path:  # Otherwise the weight is that of the role, which stays.
            self._weights.pop(path, None)
        node: _Node = leaf
        while node.parent is not None and not node.children and node.path not in self._leaves:
            del node.parent.children[node.name]
            node = node.parent

    def start(self, clients: Iterable[Path]) -> None:
        """Begin a round in which these clients want something."""
        self._refresh()
        inner: dict[int, _Node] = {id(self._root): self._root}
        self._root.heap = []
        for path in clients:
            node = self._leaves[path]
            node.heap = []
            while node.parent is not None:
                parent = node.parent
                seen = id(parent) in inner
                if not seen:
                    parent.heap = []
                    inner[id(parent)] = parent
                parent.heap.append(node.entry())
                if seen:
                    break
                node = parent
        for node in inner.values():
            heapq.heapify(node.heap)

    def lowest(self) -> Path | None:
        """Return the client whose turn it is; None when all of them have been retired."""
        node = self._root
        if not node.heap:
            return None
        while node.heap:
            node = node.heap[0][3]
        return node.path[:-1] if node.name == "." else node.path

    def charge(self, path: Path, amounts: Mapping[str, int]) -> None:
        """The client just named by `lowest` got this (by name in 1/1000), in one allocation."""
        multipliers = self._scale.multipliers
        node = self._leaves[path]
        while True:
            held, dominant = node.amounts, node.dominant
            for name, milli in amounts.items():
                now = held[name] = held.get(name, 0) + milli
                if name in multipliers:
                    scaled = now * multipliers[name]
                    if scaled > dominant:
                        dominant = scaled
            node.dominant = dominant
            node.allocations += 1
            parent = node.parent
            if parent is None:
                return
            # It was the lowest, so it stands at the top of its parent's heap, and so do its ancestors.
            if parent.heap and parent.heap[0][3] is node:
                heapq.heapreplace(parent.heap, node.entry())
            node = parent

    def retire(self, path: Path) -> None:
        """There is nothing for the client just named by `lowest` in the rest of this round."""
        node = self._leaves[path]
        while node.parent is not None and not node.heap:
            node = node.parent
            heapq.heappop(node.heap)

    def order(self, clients: Iterable[Path] | None = None) -> Iterator[Path]:
        """Yield the clients (None: all) from the one to be served first to the last. Ends any round."""
        self.start(self._leaves if clients is None else clients)
        while (path := self.lowest()) is not None:
            yield path
            self.retire(path)

    def share(self, path: Path) -> tuple[Fraction, str]:
        """Return the client's dominant share before weighting, and the resource it is of."""
        self._refresh()
        dominant, name = self._scale.dominant(self._leaves[path].amounts)
        return self._scale.fraction(dominant), name

    def weighted_share(self, path: Path) -> Fraction:
        """Return the client's dominant share divided by its weight."""
        return self.share(path)[0] / self._weights.get(path, _ONE)

    def __contains__(self, path: Path) -> bool:
        return path in self._leaves

    def _add(self, path: Path) -> _Node:
        node = self._root
        for depth in range(1, len(path) + 1):
            prefix = path[:depth]
            child = node.children.get(prefix[-1])
            if child is None:
                if node.path in self._leaves and self._leaves[node.path] is node:
                    self._make_virtual(node)
                child = self._child(prefix, node)
            node = child
        return self._child((*path, "."), node) if node.children else node

    def _child(self, path: Path, parent: _Node) -> _Node:
        child = parent.children[path[-1]] = _Node(path, parent)
        self._stale = True
        return child

    def _make_virtual(self, node: _Node) -> None:
        """Give a client that is about to get children its place among them."""
        leaf = self._child((*node.path, "."), node)
        leaf.amounts = dict(node.amounts)
        leaf.allocations = node.allocations
        self._leaves[node.path] = leaf

    def _change(self, leaf: _Node, added: Mapping[str, int], allocations: int) -> None:
        counted = allocations - leaf.allocations
        if not added and not counted:
            return
        node: _Node | None = leaf
        while node is not None:
            for name, milli in added.items():
                total = node.amounts.get(name, 0) + milli
                if total:
                    node.amounts[name] = total
                else:
                    del node.amounts[name]
            node.allocations += counted
            node.dominant = self._scale.largest(node.amounts)
            node = node.parent

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._scale = Scale(self._totals, self._exclude, {*self._weights.values(), _ONE})
        pending = [self._root]
        while pending:
            node = pending.pop()
            pending.extend(node.children.values())
            node.dominant = self._scale.largest(node.amounts)
            node.factor = self._scale.factor(self._weights.get(node.path, _ONE))
        self._stale = False
