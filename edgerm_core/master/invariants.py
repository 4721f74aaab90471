"""What must always hold of the master's books. Checked after every event in tests and simulations."""

from __future__ import annotations

from edgerm_core.agents import AgentState
from edgerm_core.frameworks import FrameworkState
from edgerm_core.master.records import fair_amounts
from edgerm_core.master.state import MasterState
from edgerm_core.resources import EMPTY, add_scalars, subtract_scalars
from edgerm_core.tasks import TaskState


def check(state: MasterState) -> None:
    """Assert every invariant of the books.

    Raises:
        AssertionError: naming the record and what does not agree.
    """
    _check_tasks(state)
    _check_agents(state)
    _check_frameworks(state)
    _check_offers(state)


def _check_tasks(state: MasterState) -> None:
    for task in state.tasks.values():
        where = f"task {task.id} ({task.state.name})"
        framework = state.frameworks.get(task.framework_id)
        assert framework is not None, f"{where}: framework {task.framework_id} is not on the books"
        holders = [a.id for a in state.agents.values() if task.id in a.holdings]
        if task.state.on_agent:
            assert holders == [task.agent_id], f"{where}: on {task.agent_id}, held by {holders}"
            holding = state.agents[holders[0]].holdings[task.id]
            assert holding.attempt == task.attempt, f"{where}: held attempt {holding.attempt}"
            assert holding.resources == task.resources, f"{where}: held {holding.resources}"
        else:
            assert not holders, f"{where}: held by {holders}"
        waiting = task.id in framework.pending
        if waiting:
            assert task.state is TaskState.PENDING, f"{where}: queued although not PENDING"
        assert (task.id in framework.live) != task.state.terminal, f"{where}: live list disagrees"
        assert (task.id in framework.ended) == task.state.terminal, f"{where}: ended list disagrees"
        assert (task.id in state.ended_order) == task.state.terminal, f"{where}: retention disagrees"
        assert task.story, f"{where}: has no story"
        last = task.story[-1]
        assert last.state is task.state, f"{where}: story ends with {last.state.name}"
        for agent in state.agents.values():
            for (task_id, attempt), _ in agent.ghosts.items():
                if task_id == task.id:
                    assert attempt <= task.attempt, f"{where}: ghost of a later attempt {attempt}"


def _check_agents(state: MasterState) -> None:
    totals: dict[str, int] = {}
    for agent in state.agents.values():
        where = f"agent {agent.id} ({agent.state.name})"
        booked = EMPTY
        free = agent.totals
        for holding in (*agent.holdings.values(), *agent.ghosts.values()):
            booked = booked + holding.resources
            free = free.minus_at_most(holding.resources)
        for offer_id in agent.offers:
            booked = booked + state.offers[offer_id].resources
            free = free.minus_at_most(state.offers[offer_id].resources)
        assert agent.free == free, f"{where}: free is [{agent.free}], books say [{free}]"
        if not agent.overbooked:
            assert agent.totals.contains(booked), f"{where}: [{booked}] booked of [{agent.totals}]"
            assert agent.free + booked == agent.totals, f"{where}: something got lost"
        assert (agent.id in state.schedulable) == agent.schedulable, f"{where}: schedulable disagrees"
        if agent.counted:
            totals = add_scalars(totals, agent.fair_totals)
        if agent.session_id is not None:
            session = state.sessions.get(agent.session_id)
            assert session is not None, f"{where}: its session is gone"
            assert session.agent_id == agent.id, f"{where}: its session is another's"
            assert agent.state in (AgentState.READY, AgentState.DRAINING), f"{where}: has a session"
        for task_id in agent.holdings:
            assert task_id in state.tasks, f"{where}: holds unknown task {task_id}"
    assert state.totals == totals, f"cluster totals are {state.totals}, agents add up to {totals}"


def _check_frameworks(state: MasterState) -> None:
    for framework in state.frameworks.values():
        where = f"framework {framework.id} ({framework.state.name})"
        allocated: dict[str, int] = {}
        count = 0
        for agent in (a for a in state.agents.values() if a.counted):
            for holding in agent.holdings.values():
                if holding.framework_id == framework.id:
                    allocated = add_scalars(allocated, holding.charge)
                    count += 1
        for offer_id in framework.offers:
            allocated = add_scalars(allocated, state.offers[offer_id].charge)
            count += 1
        allocated = subtract_scalars(allocated, {})
        assert framework.allocated == allocated, f"{where}: {framework.allocated}, holdings say {allocated}"
        assert framework.allocations == count, f"{where}: {framework.allocations} allocations, not {count}"
        if framework.state is FrameworkState.CONNECTED:
            assert framework.session_id in state.sessions, f"{where}: has no session"
        for key, ids in framework.keys.items():
            for task_id in ids:
                task = state.tasks.get(task_id)
                assert task is None or task.key == key, f"{where}: key {key} names task {task_id}"


def _check_offers(state: MasterState) -> None:
    for offer in state.offers.values():
        where = f"offer {offer.id}"
        agent = state.agents.get(offer.agent_id)
        framework = state.frameworks.get(offer.framework_id)
        assert agent is not None, f"{where}: its agent is gone"
        assert framework is not None, f"{where}: its framework is gone"
        assert offer.id in agent.offers, f"{where}: its agent does not know it"
        assert offer.id in framework.offers, f"{where}: its framework does not know it"
        assert framework.state is FrameworkState.CONNECTED, f"{where}: nobody there to answer"
        if not agent.overbooked:
            expected = fair_amounts(offer.resources, agent.devices)
            assert offer.charge == expected, f"{where}: charged {offer.charge}, not {expected}"
    for agent in state.agents.values():
        assert agent.offers.keys() <= state.offers.keys(), f"agent {agent.id}: unknown offers"
