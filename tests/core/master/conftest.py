"""A bench with the plainest of schedulers, so that these tests are about the master alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from edgerm_core.feasibility import check
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot
from edgerm_core.master.settings import Settings
from edgerm_core.resources import Resources
from edgerm_core.testing.masters import MasterBench


class PlainScheduler(Scheduler):
    """Looks at everything every time: first framework, first task, first agent that fits."""

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        for framework in snapshot.frameworks.values():
            for task in framework.pending:
                agents = sorted(snapshot.agents.values(), key=lambda a: (a.id in task.avoid, a.id))
                for agent in agents:
                    if isinstance(check(task.spec, agent), Resources):
                        return [Placement(task.id, agent.id)]
            if framework.wants_offers:
                for agent_id, agent in snapshot.agents.items():
                    if agent.free and not snapshot.refused(framework.id, agent_id, agent.free):
                        return [OfferProposal(framework.id, agent_id)]
        return []


@pytest.fixture
def bench() -> MasterBench:
    """A master with default settings."""
    return MasterBench(PlainScheduler())


@pytest.fixture
def make_bench() -> Callable[..., MasterBench]:
    """A master with other settings."""

    def make(**settings: float) -> MasterBench:
        return MasterBench(PlainScheduler(), Settings(**settings))  # type: ignore[arg-type]

    return make
