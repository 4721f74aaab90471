"""Whether a task can run on an agent, and the plain answer why not."""

import msgspec
import pytest

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import parse_constraint
from edgerm_core.feasibility import Obstacle, check, choose_implementation, fits_totals, suits
from edgerm_core.ids import AgentId
from edgerm_core.resources import Device, DeviceRequest, Resources
from edgerm_core.tasks import TaskSpec
from edgerm_core.testing.clusters import ClusterAgent, task_spec


def agent(
    totals: str = "cpus:4;mem:512;ports:[80-81]", held: str = "", camera: bool = True
) -> ClusterAgent:
    found = ClusterAgent(
        AgentInfo(
            AgentId("a1"),
            totals=Resources.parse(totals),
            attributes={"os": "linux", "floor": 3, "battery": False},
            devices=(Device("cam0", "camera", healthy=camera),),
            executors=(Fingerprint("process"), Fingerprint("wasm"), Fingerprint("docker", healthy=False)),
        )
    )
    found.take(Resources.parse(held))
    return found


def constrained(spec: TaskSpec, *constraints: str) -> TaskSpec:
    return msgspec.structs.replace(spec, constraints=tuple(parse_constraint(c) for c in constraints))


def test_the_first_implementation_that_runs_there_is_chosen() -> None:
    spec = task_spec(executors=("docker", "wasm", "process"))
    assert choose_implementation(spec, frozenset({"process", "wasm"})) == 1
    assert choose_implementation(spec, frozenset({"docker"})) == 0
    assert choose_implementation(spec, frozenset()) is None


def test_what_is_granted_is_concrete() -> None:
    spec = task_spec("cpus:1;ports:1", devices=(DeviceRequest("camera"),))
    assert check(spec, agent()) == Resources({"cpus": 1000}, {"ports": ((80, 80),)}, {}, {"cam0": 1})


def test_every_obstacle_is_named() -> None:
    spec = constrained(
        task_spec(
            "cpus:8;ports:[90-91]", executors=("docker", "vm"), devices=(DeviceRequest("camera", 2),)
        ),
        "os==windows",
        "exists gpu",
        "not exists battery",
        "floor>=2",
    )
    assert check(spec, agent()) == [
        Obstacle("executor", "executor: wants docker or vm, has process, wasm"),
        Obstacle("constraint", "constraint os==windows: os is linux"),
        Obstacle("constraint", "constraint exists gpu: gpu is not set"),
        Obstacle("constraint", "constraint not exists battery: battery is false"),
        Obstacle("resources", "ports: wants 90-91, has those taken or not there"),
        Obstacle("resources", "cpus: wants 8, has 4"),
        Obstacle("device", "device/camera: wants 2, has 1"),
    ]


def test_what_runs_there_already_is_not_free() -> None:
    spec = task_spec("cpus:2")
    assert check(spec, agent(held="cpus:3")) == [Obstacle("resources", "cpus: wants 2, has 1")]
    assert fits_totals(spec, agent(held="cpus:3"))
    assert not fits_totals(task_spec("cpus:5"), agent())


@pytest.mark.parametrize("healthy", [True, False])
def test_an_unhealthy_device_is_none(healthy: bool) -> None:
    spec = task_spec("", devices=(DeviceRequest("camera"),))
    assert fits_totals(spec, agent(camera=healthy)) == healthy


def test_constraints_and_executors_decide_whatever_is_free() -> None:
    assert suits(constrained(task_spec("cpus:99"), "floor>=2"), agent())
    assert not suits(constrained(task_spec(), "floor>=4"), agent())
    assert not suits(task_spec(executors=("docker",)), agent())
    assert not fits_totals(constrained(task_spec(), "floor>=4"), agent())
