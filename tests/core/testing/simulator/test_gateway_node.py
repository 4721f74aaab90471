"""A simulated gateway: the real machine, with devices that come, go, and leave things in its custody."""

from __future__ import annotations

import pytest

from edgerm_core.gateway.records import CustodyTaken
from edgerm_core.messages import Acknowledge
from edgerm_core.tasks import TaskState
from edgerm_core.testing.simulator import plan as plans
from edgerm_core.testing.simulator.agent_node import AgentPlan
from edgerm_core.testing.simulator.cluster import Cluster, run_plan
from edgerm_core.testing.simulator.framework_node import FrameworkPlan
from edgerm_core.testing.simulator.gateway_node import GatewayNode
from edgerm_core.testing.simulator.network import DOWN, UP, LinkQuality
from edgerm_core.testing.simulator.world import Failure

from .conftest import Begin, begun, job

SLEEPY = LinkQuality(0.1, 0.2, push=False, keepalive_s=None, max_frame_bytes=2048)


def plan_of(*actions: plans.AnyAction, link: LinkQuality | None = None, run_s: float = 20.0) -> plans.Plan:
    """Return a plan with two gateways that take no tasks, a device d1, and a task for it."""
    nothing = "cpus:0.1;mem:1"
    begin: tuple[plans.AnyAction, ...] = (
        plans.SwitchOn(0.0, AgentPlan("g1", nothing, gateway=True)),
        plans.SwitchOn(0.0, AgentPlan("g2", nothing, gateway=True)),
        plans.SwitchOn(3.0, AgentPlan("d1", link=link or LinkQuality(), via=("g1", "g2", "m"))),
        plans.Join(0.0, FrameworkPlan("f1")),
        plans.SubmitTasks(10.0, "f1", "w0", job(run_s=run_s)),
    )
    return plans.Plan(1, 100.0, actions=(*begin, *actions))


@pytest.fixture
def begin() -> Begin:
    """Start a cluster and let it live for some seconds."""

    def begin(*actions: plans.AnyAction, seconds: float, link: LinkQuality | None = None) -> Cluster:
        return begun(plan_of(*actions, link=link), seconds)

    return begin


def gateway(cluster: Cluster, name: str = "g1") -> GatewayNode:
    return cluster.checks.gateways[name]


def via(cluster: Cluster) -> str | None:
    assert cluster.master.machine is not None
    return cluster.master.machine.state.agents["d1"].via  # type: ignore[index]


UPLINK_CUT = plans.Cut(20.0, "g1", (UP, DOWN), 70.0)


@pytest.mark.parametrize("link", [LinkQuality(), SLEEPY], ids=["push", "sleepy"])
@pytest.mark.parametrize(
    "action",
    [
        plans.OperatorAsks(15.0, "agents", 1),
        plans.Cut(20.0, "g1", (UP, DOWN), 40.0),
        plans.Moved(15.0, "d1", "g2", 30.0),
        plans.Moved(15.0, "d1", "m", 30.0),
        plans.AgentKilled(15.0, "g1", 10.0),
        plans.PowerLost(15.0, "g1", 10.0),
        plans.Rebooted(15.0, "g1", 10.0),
        plans.AgentDiskFull(15.0, "g1", 60.0),
        plans.ClockSet(15.0, "g1", -1000.0),
        plans.MasterKilled(15.0, "now", 20.0),
    ],
    ids=lambda action: type(action).__name__,
)
def test_a_device_behind_a_gateway_ends_its_task(action: plans.AnyAction, link: LinkQuality) -> None:
    outcome = run_plan(plan_of(action, link=link))
    assert outcome.failure == ""
    assert outcome.counts["FINISHED"] == 1
    assert outcome.counts["runs"] == 1
    assert outcome.counts["relayed orders"] >= 1


def test_a_lossy_link_delays_and_breaks_and_loses_nothing() -> None:
    link = LinkQuality(0.1, 0.2, push=False, keepalive_s=None, max_frame_bytes=2048, loss=0.5)
    outcome = run_plan(plan_of(link=link))
    assert outcome.failure == ""
    assert outcome.counts["FINISHED"] == 1


def test_a_gateway_takes_custody_while_its_uplink_is_cut(begin: Begin) -> None:
    cluster = begin(UPLINK_CUT, seconds=85.0)
    node = gateway(cluster)
    taken = [each for each in node.custody().records() if isinstance(each, CustodyTaken)]
    assert taken[-1].update.state is TaskState.FINISHED
    assert node.custody_on(node.custody_disk.durable()).agents() == ["d1"], "before its device forgets it"


def test_custody_survives_the_gateways_power(begin: Begin) -> None:
    cluster = begin(UPLINK_CUT, seconds=85.0)
    node = gateway(cluster)
    node.power_off(cleanly=False)
    assert node.gateway is None
    node.power_on()
    node.start()
    cluster.world.run_until(90.0)
    assert node.custody().agents() == ["d1"]


def test_a_device_moves_and_comes_back(begin: Begin) -> None:
    cluster = begin(plans.Moved(15.0, "d1", "g2", 60.0), seconds=14.0)
    assert via(cluster) == "g1"
    cluster.world.run_until(60.0)
    assert via(cluster) == "g2"


def test_an_acknowledgement_that_no_disk_stands_behind_is_found(begin: Begin) -> None:
    cluster = begin(seconds=20.0)
    with pytest.raises(Failure, match="no disk has it"):
        cluster.checks.gateway_says(gateway(cluster), "d1", 1, [Acknowledge(1, 1, 99)])  # type: ignore[arg-type]


def test_custody_that_is_gone_is_found(begin: Begin) -> None:
    cluster = begin(UPLINK_CUT, seconds=85.0)
    node = gateway(cluster)
    node.custody().release("d1", (1, 1), 99)  # type: ignore[arg-type]
    with pytest.raises(Failure, match=r"the end of t1\.1 on d1 is lost"):
        cluster.checks.gateway_handled(node, "a slip")
