"""Whether a task can run on an agent, and the plain answer why not."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.attributes import parse_constraint
from edgerm_core.codec import encode
from edgerm_core.feasibility import (
    Obstacle,
    check,
    choose_implementation,
    fits_totals,
    launch_bytes,
    suits,
)
from edgerm_core.ids import AgentId, FrameworkId, TaskId, blob_id
from edgerm_core.limits import MAX_LAUNCH_BYTES
from edgerm_core.messages import Launch
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest, Resources
from edgerm_core.tasks import File, Implementation, RestartPolicy, TaskSpec, Volume
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


# --- the size of launches ---------------------------------------------------------------------------


def the_launch(spec: TaskSpec) -> Launch:
    """Return as large a Launch as the spec can become, short of long ids."""
    granted = dict.fromkeys(spec.resources.quantities, 10**15)
    return Launch(
        TaskId(2**31),
        1000,
        FrameworkId("0123456789abcdef"),
        spec.name,
        spec.implementations[0],
        Resources(granted),
        spec.env,
        spec.files,
        spec.volumes,
        spec.restart,
        600.5,
        3600.5,
        10.5,
        1000,
    )


SPECS = st.builds(
    TaskSpec,
    name=st.text(max_size=64),
    implementations=st.tuples(
        st.builds(
            Implementation,
            executor=st.sampled_from(["wasm", "process"]),
            blob=st.sampled_from([None, blob_id(b"x")]),
            args=st.lists(st.one_of(st.text(max_size=40), st.integers(0, 2**60)), max_size=5).map(tuple),
            options=st.dictionaries(st.text(max_size=9), st.text(max_size=40), max_size=4),
        )
    ),
    resources=st.sampled_from([ResourceRequest.parse("cpus:1;mem:64"), ResourceRequest()]),
    env=st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5),
    files=st.lists(st.builds(File, st.text(max_size=40), st.just(blob_id(b"y"))), max_size=3).map(tuple),
    volumes=st.lists(st.builds(Volume, st.text(max_size=40), st.text(max_size=20)), max_size=3).map(tuple),
    restart=st.sampled_from([RestartPolicy(), RestartPolicy("always", 5, 60.5, 0.5, 30.5)]),
)


@settings(max_examples=200, deadline=None)
@given(SPECS)
def test_a_launch_is_not_larger_than_its_estimate(spec: TaskSpec) -> None:
    assert len(encode(the_launch(spec))) <= launch_bytes(spec) <= MAX_LAUNCH_BYTES


def test_an_ordinary_task_fits_into_the_frames_of_a_small_device() -> None:
    options = {"function": "sample"}
    spec = TaskSpec("sample", (Implementation("wasm", blob_id(b"x"), options=options),))
    assert launch_bytes(spec) <= 256


def test_a_launch_that_the_connection_does_not_take_is_an_obstacle() -> None:
    small = agent()
    small.max_message_bytes = 512
    spec = task_spec("cpus:1")
    assert suits(spec, small)
    large = msgspec.structs.replace(spec, env={"A": "x" * 1000})
    assert suits(large, agent())
    assert not suits(large, small)
    assert not fits_totals(large, small)
    assert check(large, small) == [
        Obstacle("launch", f"launch: about {launch_bytes(large)} bytes, its connection takes 512")
    ]


def test_an_agent_that_runs_as_many_tasks_as_it_takes_is_full_whatever_is_free() -> None:
    board = agent()
    board.max_tasks = 2
    board.tasks = 1
    assert isinstance(check(task_spec(), board), Resources)
    board.tasks = 2
    assert [obstacle.kind for obstacle in check(task_spec(), board)] == ["tasks"]  # type: ignore[union-attr]
    assert [obstacle.kind for obstacle in check(task_spec("cpus:9"), board)] == ["tasks", "resources"]  # type: ignore[union-attr]
    assert fits_totals(task_spec(), board)
