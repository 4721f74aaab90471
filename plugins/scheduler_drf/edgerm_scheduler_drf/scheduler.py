"""Weighted Dominant Resource Fairness (Ghodsi et al., NSDI 2011), with offers and queued tasks alike.

While anything fits, the framework with the lowest weighted dominant share that has a task that fits is
served, its oldest such task first; a framework that takes offers is offered all that is free on an
agent it has not refused. The work is kept small by what `Books` remembers between calls: what is free
where (`index`), which agents suit which demand (`matching`), how far each search has come (`finder`), who
waits for what (`queue`), and which demands fit nowhere, until something changes on an agent that could
help them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edgerm_core.feasibility import check, fits_totals
from edgerm_core.ids import FrameworkId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot, TaskView
from edgerm_core.resources import EMPTY, Resources, grant
from edgerm_scheduler_drf.account import Account, quantities
from edgerm_scheduler_drf.books import OFFERABLE, Books, framework_path, framework_weight, new_sorter
from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.demand import Demand
from edgerm_scheduler_drf.scoring import worth_offering

MAX_REFUSAL_CHECKS: Final = 20_000
"""Agents looked at for offers in one call that turn out to be refused; the next call goes on from there."""


class DrfScheduler(Scheduler):
    """Serves the framework with the lowest weighted dominant share first."""

    def __init__(self, config: DrfConfig | None = None) -> None:
        self._config = config or DrfConfig()
        self._books: Books | None = None

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        """Return at most `max_decisions` decisions, in the order in which they shall count."""
        complete = snapshot.complete or self._books is None
        if complete or self._books is None:
            self._books = Books(self._config)
        self._books.take_over(snapshot, complete)
        call = _Call(self._config, self._books, snapshot)
        call.serve_reservations()
        call.serve()
        return call.decisions

    def explain(self, task: TaskView, snapshot: Snapshot) -> str:
        """Return one sentence: the framework's dominant share, who comes first, what is set aside."""
        framework = snapshot.frameworks.get(task.framework_id)
        if framework is None:
            return ""
        sorter = new_sorter(self._config)
        sorter.set_totals(snapshot.totals)
        for other in snapshot.frameworks.values():
            sorter.put(framework_path(other), other.allocated, other.allocations)
            sorter.set_weight(framework_path(other), framework_weight(other))
        path = framework_path(framework)
        waiting = {
            framework_path(f) for f in snapshot.frameworks.values() if f.pending_count or f.wants_offers
        }
        before = list(sorter.order(waiting | {path})).index(path)
        share, resource = sorter.share(path)
        weight = framework_weight(framework)
        sentence = (
            f"framework {framework.id} has a dominant share of {float(share * 100):.3g} %"
            + (f" ({resource})" if resource else "")
            + (f" at weight {float(weight):g}" if weight != 1 else "")
        )
        if before == 0:
            sentence += ", no other framework is served first"
        elif before == 1:
            sentence += ", 1 framework with less is served first"
        else:
            sentence += f", {before} frameworks with less are served first"
        reservation = self._books.reservations.of_task(task.id) if self._books is not None else None
        if reservation is not None:
            sentence += f"; agent {reservation.agent_id} is set aside for this task until it fits there"
        return sentence


class _Call:
    """One call of `schedule`: its decisions and its account of what it has given away."""

    def __init__(self, config: DrfConfig, books: Books, snapshot: Snapshot) -> None:
        self._config = config
        self._books = books
        self._snapshot = snapshot
        self._agents = snapshot.agents
        self._account = Account(snapshot.agents)
        self.decisions: list[Decision] = []
        self._refusal_checks = 0
        self._due: dict[FrameworkId, TaskId] = {}
        self._retired_at: dict[FrameworkId, int] = {}
        self._own_younger: set[FrameworkId] = set()

    def serve_reservations(self) -> None:
        """Place the tasks that fit on the agents set aside for them by now; open what is overdue."""
        books, snapshot = self._books, self._snapshot
        for reservation in books.reservations:
            task_id = reservation.task_id
            demand = books.demand_of.get(task_id)
            agent = self._agents.get(reservation.agent_id)
            if demand is None or agent is None or not fits_totals(demand.spec, agent):
                books.open(task_id)
            elif isinstance(check(demand.spec, agent), Resources):
                slot = books.index.slot(reservation.agent_id)
                assert slot is not None
                self._place(task_id, demand, slot)
                path = books.paths.get(reservation.framework_id)
                if path is not None:
                    books.sorter.charge(path, demand.amounts)
                    books.touched_frameworks.add(reservation.framework_id)
            elif snapshot.now >= reservation.until_s:
                books.open(task_id)

    def serve(self) -> None:
        """Serve whose turn it is until nobody can be served or the call has done enough."""
        books = self._books
        sorter, limit = books.sorter, self._config.max_decisions
        self._note_due()
        clients = books.ready | books.offer_takers | self._due.keys()
        sorter.start(books.paths[client] for client in clients if client in books.paths)
        while len(self.decisions) < limit:
            path = sorter.lowest()
            if path is None:
                break
            framework_id = books.ids[path]
            charge = self._serve_task(framework_id)
            if charge is None and framework_id in books.offer_takers:
                charge = self._serve_offer(framework_id)
            if charge is None:
                sorter.retire(path)
                self._retired_at[framework_id] = len(self.decisions)
            else:
                sorter.charge(path, charge)
                books.touched_frameworks.add(framework_id)
        self._set_aside()

    def _serve_task(self, framework_id: FrameworkId) -> dict[str, int] | None:
        """Place the framework's oldest task that fits; returns what it is charged."""
        books = self._books
        queue = books.queues.get(framework_id)
        while queue is not None and (head := queue.next()) is not None:
            task_id, demand = head
            slot = books.finder.find(demand, self._agents, self._accept(demand))
            if slot is None:
                books.block(demand, self._snapshot.now)
                continue
            if task_id > self._due.get(framework_id, task_id):
                self._own_younger.add(framework_id)
            self._place(task_id, demand, slot)
            return demand.amounts
        books.ready.discard(framework_id)
        return None

    def _accept(self, demand: Demand) -> Callable[[int], bool] | None:
        if demand.plain and (
            not self._books.not_scalar
            or self._books.not_scalar.isdisjoint(name for name, _ in demand.needs)
        ):
            return None

        def fits(slot: int) -> bool:
            agent_id = self._books.index.agent(slot)
            assert agent_id is not None
            free = self._account.free(agent_id)
            granted = grant(demand.spec.resources, free, self._agents[agent_id].devices)
            return isinstance(granted, Resources)

        return fits

    def _place(self, task_id: TaskId, demand: Demand, slot: int) -> None:
        books = self._books
        index = books.index
        agent_id = index.agent(slot)
        assert agent_id is not None
        self._account.give(agent_id, demand)
        books.touched_agents.add(agent_id)
        agent = self._agents[agent_id]
        if self._accept(demand) is None:
            index.take(slot, index.columns(demand.needs))
            if self._config.strategy == "spread":
                index.set_rank(slot, books.rank(agent, index.amounts(slot)))
        else:
            books.set_free(
                agent_id, agent, self._account.free(agent_id), self._account.tasks_left(agent_id)
            )
        self.decisions.append(Placement(task_id, agent_id))
        demand.blocked_since = None
        books.placed.add(task_id)
        books.drop_task(task_id)

    def _serve_offer(self, framework_id: FrameworkId) -> dict[str, int] | None:
        """Offer all that is free on an agent that the framework has not refused."""
        books = self._books
        slot = self._find_offer(framework_id)
        if slot is None:
            return None
        agent_id = books.index.agent(slot)
        assert agent_id is not None
        agent = self._agents[agent_id]
        charge = quantities(self._account.free(agent_id), agent.devices)
        self._account.give_all(agent_id)
        books.touched_agents.add(agent_id)
        books.set_free(agent_id, agent, EMPTY, self._account.tasks_left(agent_id))
        books.offers_made[framework_id] = books.offers_made.get(framework_id, 0) + 1
        self.decisions.append(OfferProposal(framework_id, agent_id))
        return charge

    def _find_offer(self, framework_id: FrameworkId) -> int | None:
        books = self._books
        index = books.index
        needs = index.columns([(OFFERABLE, 1)])
        begin = books.offer_starts.get(framework_id, 0)
        for start, end in ((begin, index.size), (0, begin)):
            slot = index.first(needs, start, None, None)
            while slot is not None and slot < end:
                agent_id = index.agent(slot)
                assert agent_id is not None
                free = self._account.free(agent_id)
                room = self._account.tasks_left(agent_id) > 0
                if room and worth_offering(free, self._agents[agent_id].totals):
                    if not self._snapshot.refused(framework_id, agent_id, free):
                        books.offer_starts.pop(framework_id, None)
                        return slot
                    self._refusal_checks += 1
                    if self._refusal_checks >= MAX_REFUSAL_CHECKS:
                        books.offer_starts[framework_id] = slot + 1
                        return None
                slot = index.first(needs, slot + 1, None, None)
        books.offer_starts.pop(framework_id, None)
        return None

    def _note_due(self) -> None:
        """Note the frameworks whose oldest parked task has waited long enough for an agent set aside."""
        books = self._books
        reservations = books.reservations
        if reservations.full or not books.blocked:
            return
        for framework_id, queue in books.queues.items():
            parked = queue.oldest_parked()
            if (
                parked is not None
                and reservations.is_due(parked[1].blocked_since, self._snapshot.now)
                and not reservations.has_framework(framework_id)
            ):
                self._due[framework_id] = parked[0]

    def _set_aside(self) -> None:
        """Set agents aside for those who were due and passed over, in the order of their turns."""
        books = self._books
        for framework_id, at in self._retired_at.items():
            if books.reservations.full:
                return
            task_id = self._due.get(framework_id)
            demand = books.demand_of.get(task_id) if task_id is not None else None
            if task_id is None or demand is None:
                continue
            if at == len(self.decisions) and framework_id not in self._own_younger:
                continue
            open_agents = {
                agent_id: agent for agent_id, agent in self._agents.items() if agent_id not in demand.avoid
            }
            reservation = books.reservations.make(
                task_id, framework_id, demand.spec, open_agents or self._agents, self._snapshot.now
            )
            if reservation is None:
                books.give_up_hope(framework_id, demand)
                continue
            slot = books.index.slot(reservation.agent_id)
            assert slot is not None
            books.index.hidden.add(slot)
