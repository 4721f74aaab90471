"""Small clusters with one agent and one framework, and time that passes when the test says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgerm_core.resources import ResourceRequest
from edgerm_core.tasks import Implementation, TaskSpec
from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.cluster import Cluster
from edgerm_core.testing.simulator.executors import Behaviour
from edgerm_core.testing.simulator.framework_node import FrameworkPlan
from edgerm_core.testing.simulator.plan import AnyAction, Join, Plan, SubmitTasks, SwitchOn
from edgerm_core.testing.simulator.story import Story

Begin = Callable[..., Cluster]


def job(name: str = "w0", *, run_s: float | None = 5.0, executor: str = "process") -> TaskSpec:
    """Return a small task."""
    behaviour = Behaviour(run_s=run_s)
    implementations = (Implementation(executor, options=behaviour.options()),)
    return TaskSpec(name, implementations, ResourceRequest.parse("cpus:1;mem:10"))


def plan_of(*actions: AnyAction, faults_s: float = 60.0, offers: bool = False) -> Plan:
    """Return a plan with an agent a1, a framework f1 and these actions."""
    begin = (SwitchOn(0.0, AgentPlan("a1")), Join(0.0, FrameworkPlan("f1", offers=offers)))
    return Plan(1, faults_s, actions=(*begin, *actions))


def begun(plan: Plan, seconds: float) -> Cluster:
    """Start a cluster, with its story, and let it do for some seconds what the plan says."""
    cluster = Cluster(plan, Story(keep=True))
    cluster.master.start()
    cluster.operator.dial()
    for action in plan.actions:
        cluster.world.at(action.at, lambda action=action: cluster._act(action))  # type: ignore[misc]
    cluster.world.run_until(seconds)
    return cluster


@pytest.fixture
def begin() -> Begin:
    """Start a cluster with a1, f1 and what is submitted, and let some seconds pass."""

    def begin(*specs: TaskSpec, seconds: float = 10.0, offers: bool = False) -> Cluster:
        submits = [SubmitTasks(2.0, "f1", spec.name, spec) for spec in specs]
        return begun(plan_of(*submits, offers=offers), seconds)

    return begin
