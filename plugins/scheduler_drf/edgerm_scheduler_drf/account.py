"""What is left on the agents while one call gives things away.

A snapshot does not change during a call, so the scheduler keeps its own account. Plain amounts are kept
in the index alone; ports, sets and devices need the concrete rest, which is computed when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgerm_core.ids import AgentId
from edgerm_core.interfaces import AgentView
from edgerm_core.resources import EMPTY, UNIT, Device, Resources, grant
from edgerm_scheduler_drf.demand import Demand


class Account:
    """Grants of one call, by agent."""

    def __init__(self, agents: Mapping[AgentId, AgentView]) -> None:
        self._agents = agents
        self._granted: dict[AgentId, list[Demand]] = {}
        self._rest: dict[AgentId, tuple[int, Resources]] = {}

    def give(self, agent_id: AgentId, demand: Demand) -> None:
        """A task of this demand goes there; it has been checked to fit."""
        granted = self._granted.get(agent_id)
        if granted is None:
            self._granted[agent_id] = [demand]
        else:
            granted.append(demand)

    def give_all(self, agent_id: AgentId) -> None:
        """Everything that is left there is offered."""
        self._rest[agent_id] = (len(self._granted.get(agent_id, ())), EMPTY)

    def tasks_left(self, agent_id: AgentId) -> int:
        """Return how many more tasks the agent takes."""
        return self._agents[agent_id].tasks_left - len(self._granted.get(agent_id, ()))

    def free(self, agent_id: AgentId) -> Resources:
        """Return what is left on the agent."""
        agent = self._agents[agent_id]
        granted = self._granted.get(agent_id, [])
        done, rest = self._rest.get(agent_id, (0, agent.free))
        if done == len(granted):
            return rest
        for demand in granted[done:]:
            taken = grant(demand.spec.resources, rest, agent.devices)
            assert isinstance(taken, Resources), f"{agent_id} was given more than it has"
            rest = rest.minus_at_most(taken)
        self._rest[agent_id] = (len(granted), rest)
        return rest


def quantities(free: Resources, devices: Mapping[str, Device]) -> dict[str, int]:
    """Return amounts by name in 1/1000, slots of healthy devices as `device/<type>`."""
    amounts = dict(free.scalars) if not (free.ranges or free.sets) else free.quantities()
    for device_id, slots in free.devices.items():
        device = devices.get(device_id)
        if device is not None:
            key = f"device/{device.type}"
            amounts[key] = amounts.get(key, 0) + slots * UNIT
    return amounts
