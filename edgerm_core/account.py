"""What is left on the agents while a scheduler gives things away.

A snapshot does not change during a call of `Scheduler.schedule`, so whoever makes several decisions in
one call must remember what the earlier ones took. This does, for schedulers that have no faster way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgerm_core.feasibility import suits
from edgerm_core.ids import AgentId
from edgerm_core.interfaces import AgentView
from edgerm_core.resources import EMPTY, Resources, grant
from edgerm_core.tasks import TaskSpec


class Account:
    """What is left on each agent of one snapshot. Good for one call.

    Parameters:
        agents: those of the snapshot.
    """

    def __init__(self, agents: Mapping[AgentId, AgentView]) -> None:
        self._agents = {agent_id: agents[agent_id] for agent_id in sorted(agents)}
        self._free = {agent_id: agent.free for agent_id, agent in self._agents.items()}
        self._tasks_left = {agent_id: agent.tasks_left for agent_id, agent in self._agents.items()}

    def __iter__(self) -> Iterator[AgentId]:
        """Iterate over the agents, by id."""
        return iter(self._agents)

    def free(self, agent_id: AgentId) -> Resources:
        """Return what is left on the agent; nothing if it takes no more tasks."""
        return self._free[agent_id] if self._tasks_left[agent_id] > 0 else EMPTY

    def place(self, spec: TaskSpec, agent_id: AgentId) -> bool:
        """Take what the task would get on the agent; returns False and takes nothing if it cannot run."""
        agent = self._agents[agent_id]
        if self._tasks_left[agent_id] < 1 or not suits(spec, agent):
            return False
        granted = grant(spec.resources, self._free[agent_id], agent.devices)
        if not isinstance(granted, Resources):
            return False
        self._free[agent_id] = self._free[agent_id].minus_at_most(granted)
        self._tasks_left[agent_id] -= 1
        return True

    def offer(self, agent_id: AgentId) -> None:
        """Take all that is left: it is offered."""
        self._free[agent_id] = EMPTY
