"""Which agent is set aside for a task that has waited too long, and for how long."""

from __future__ import annotations

from edgerm_scheduler_drf.config import DrfConfig
from edgerm_scheduler_drf.reservations import MAX_DOUBLINGS, Reservation, Reservations

from edgerm_core.agents import AgentInfo, Fingerprint
from edgerm_core.ids import AgentId, FrameworkId, TaskId
from edgerm_core.resources import Resources
from edgerm_core.testing.clusters import ClusterAgent, task_spec

CONFIG = DrfConfig(reserve_after_s=60.0, reserve_for_s=100.0, max_reservations=2)
BIG = task_spec("cpus:4")
FRAMEWORK = FrameworkId("f")


def make_agents(**agents: tuple[str, str]) -> dict[AgentId, ClusterAgent]:
    """Name to totals and what of them is held."""
    made: dict[AgentId, ClusterAgent] = {}
    for name, (totals, held) in agents.items():
        info = AgentInfo(AgentId(name), totals=Resources.parse(totals), executors=(Fingerprint("process"),))
        made[info.id] = ClusterAgent(info)
        if held:
            made[info.id].take(Resources.parse(held))
    return made


def make(
    reservations: Reservations, agents: dict[AgentId, ClusterAgent], number: int = 1, now: float = 0.0
) -> Reservation | None:
    return reservations.make(TaskId(number), FrameworkId(f"f{number}"), BIG, agents, now)


def test_agent_that_lacks_the_least_is_set_aside() -> None:
    agents = make_agents(a=("cpus:8", "cpus:7"), b=("cpus:8", "cpus:5"), c=("cpus:4", "cpus:3"))
    reservations = Reservations(CONFIG)
    reservation = make(reservations, agents, now=7.0)
    assert reservation == Reservation(TaskId(1), FrameworkId("f1"), AgentId("b"), 107.0)
    assert list(reservations) == [reservation]
    assert reservations.of_task(TaskId(1)) == reservation


def test_of_equals_the_smallest_machine_is_set_aside() -> None:
    agents = make_agents(a=("cpus:16", "cpus:13"), z=("cpus:4", "cpus:1"))
    made = make(Reservations(CONFIG), agents)
    assert made is not None
    assert made.agent_id == "z"


def test_lack_is_that_of_the_scarcest_resource() -> None:
    agents = make_agents(a=("cpus:4;mem:100", "cpus:1;mem:99"), b=("cpus:4;mem:100", "cpus:2;mem:50"))
    spec = task_spec("cpus:4;mem:100")
    made = Reservations(CONFIG).make(TaskId(1), FRAMEWORK, spec, agents, 0.0)
    assert made is not None
    assert made.agent_id == "b"


def test_nothing_is_set_aside_for_what_fits_on_no_empty_agent() -> None:
    reservations = Reservations(CONFIG)
    assert make(reservations, make_agents(a=("cpus:3", ""), b=("mem:10000", ""))) is None
    assert len(reservations) == 0


def test_an_agent_is_set_aside_for_one_task_only() -> None:
    agents = make_agents(a=("cpus:4", "cpus:4"), b=("cpus:8", "cpus:8"))
    reservations = Reservations(CONFIG)
    first, second = make(reservations, agents, 1), make(reservations, agents, 2)
    assert first is not None
    assert second is not None
    assert {first.agent_id, second.agent_id} == {"a", "b"}
    assert reservations.full
    assert make(reservations, agents, 3) is None


def test_next_try_takes_the_next_agent_for_twice_as_long() -> None:
    agents = make_agents(a=("cpus:4", "cpus:1"), b=("cpus:4", "cpus:2"), c=("cpus:4", "cpus:3"))
    reservations = Reservations(CONFIG)
    tries = []
    for _ in range(4):
        made = make(reservations, agents)
        assert made is not None
        tries.append((made.agent_id, made.until_s))
        reservations.release(TaskId(1))
    assert tries == [("a", 100.0), ("b", 200.0), ("c", 400.0), ("a", 800.0)]


def test_period_stops_doubling_before_it_is_no_number_any_more() -> None:
    agents = make_agents(a=("cpus:4", ""))
    reservations = Reservations(CONFIG)
    longest = 0.0
    for _ in range(MAX_DOUBLINGS + 20):
        made = make(reservations, agents)
        assert made is not None
        longest = made.until_s
        reservations.release(TaskId(1))
    assert longest == 100.0 * 2**MAX_DOUBLINGS


def test_task_that_is_placed_and_waits_again_starts_anew() -> None:
    agents = make_agents(a=("cpus:4", ""))
    reservations = Reservations(CONFIG)
    make(reservations, agents)
    reservations.release(TaskId(1))
    reservations.forget(TaskId(1))
    made = make(reservations, agents)
    assert made is not None
    assert made.until_s == 100.0


def test_framework_has_a_reservation_until_it_is_released() -> None:
    reservations = Reservations(CONFIG)
    make(reservations, make_agents(a=("cpus:4", "")))
    assert reservations.has_framework(FrameworkId("f1"))
    assert not reservations.has_framework(FrameworkId("f2"))
    reservations.release(TaskId(1))
    assert not reservations.has_framework(FrameworkId("f1"))
    assert reservations.of_task(TaskId(1)) is None


def test_waiting_is_due_after_the_configured_time_and_not_before() -> None:
    reservations = Reservations(CONFIG)
    assert not reservations.is_due(None, 1e9)
    assert not reservations.is_due(10.0, 69.9)
    assert reservations.is_due(10.0, 70.0)


def test_no_reservations_allowed_is_full_from_the_start() -> None:
    assert Reservations(DrfConfig(max_reservations=0)).full
