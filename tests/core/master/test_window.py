"""What a scheduler sees of the master's books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edgerm_core.ids import AgentId, BlobId, FrameworkId, TaskId
from edgerm_core.interfaces import Decision, OfferProposal, Placement, Scheduler, Snapshot
from edgerm_core.master.window import Window
from edgerm_core.messages import Decline, Drain, Offers, Revive, Suppress
from edgerm_core.resources import Device, DeviceRequest, ResourceRequest, Resources
from edgerm_core.tasks import File, Implementation, TaskSpec, TaskState
from edgerm_core.testing.masters import MasterBench, spec

F1, F2 = FrameworkId("f1"), FrameworkId("f2")


class Recorder(Scheduler):
    """Keeps what changed in each call, and places what it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.decisions: list[Decision] = []

    def schedule(self, snapshot: Snapshot) -> Sequence[Decision]:
        self.calls.append(
            {
                "complete": snapshot.complete,
                "agents": set(snapshot.agent_changes),
                "frameworks": set(snapshot.framework_changes),
                "tasks": set(snapshot.task_changes),
            }
        )
        decisions, self.decisions = self.decisions, []
        return decisions


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def bench(recorder: Recorder) -> MasterBench:
    return MasterBench(recorder)


def window(bench: MasterBench) -> Window:
    return Window(bench.state, complete=True)


def test_the_first_call_is_complete_and_later_ones_name_what_changed(
    bench: MasterBench, recorder: Recorder
) -> None:
    bench.agent("a1")
    bench.framework("f1")
    (task_id,) = bench.submit(bench.peers[list(bench.peers)[-1]], spec())
    assert [call["complete"] for call in recorder.calls] == [True, False, False]
    assert recorder.calls[0]["agents"] == {"a1"}
    assert recorder.calls[1]["frameworks"] == {"f1"}
    assert recorder.calls[2]["tasks"] == {task_id}


def test_a_complete_window_names_everything(bench: MasterBench) -> None:
    bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    shown = window(bench)
    assert shown.agent_changes == {"a1"}
    assert shown.framework_changes == {"f1"}
    assert shown.task_changes == {task_id}


def test_a_placement_shows_the_agent_the_framework_and_the_task_as_changed(
    bench: MasterBench, recorder: Recorder
) -> None:
    bench.agent("a1")
    framework = bench.framework("f1")
    (task_id,) = bench.submit(framework, spec())
    recorder.decisions = [Placement(task_id, AgentId("a1"))]
    bench.submit(framework, spec(resources="cpus:99;mem:1"))
    assert bench.state.tasks[task_id].state is TaskState.STAGING
    last = recorder.calls[-1]
    assert (last["agents"], last["frameworks"], last["tasks"]) == ({"a1"}, {"f1"}, {task_id})


def test_only_agents_that_may_get_tasks_are_shown(bench: MasterBench) -> None:
    bench.agent("a1")
    bench.agent("away").hang_up()
    bench.agent("drained")
    bench.operator().send(Drain(1, AgentId("drained")))
    assert list(window(bench).agents) == ["a1"]


def test_only_tasks_that_wait_for_a_placement_are_shown(bench: MasterBench, recorder: Recorder) -> None:
    bench.agent("a1")
    framework = bench.framework("f1")
    blocked = spec(files=(File("x", BlobId(b"\x05" * 32)),))
    waiting, placed, blob = bench.submit(framework, spec(), spec(), blocked)
    recorder.decisions = [Placement(placed, AgentId("a1"))]
    bench.submit(framework, spec("later"))
    shown = window(bench)
    assert [task.id for task in shown.frameworks[F1].pending] == [waiting, blob + 1]
    assert shown.frameworks[F1].pending_count == 2
    assert shown.pending_task(waiting) is not None
    for task_id in (placed, blob, TaskId(999)):
        assert shown.pending_task(task_id) is None


def test_totals_and_allocations_count_devices_by_type(bench: MasterBench, recorder: Recorder) -> None:
    bench.agent("a1", "cpus:4;mem:100", devices=(Device("cam0", "camera"), Device("cam1", "camera")))
    framework = bench.framework("f1", weight=2500, role="lab")
    request = ResourceRequest.parse("cpus:1.5;mem:10", [DeviceRequest("camera")])
    (task_id,) = bench.submit(framework, TaskSpec("look", (Implementation("test"),), request))
    recorder.decisions = [Placement(task_id, AgentId("a1"))]
    bench.framework("f2")
    shown = window(bench)
    assert shown.totals == {"cpus": 4000, "mem": 100_000, "device/camera": 2000}
    view = shown.frameworks[F1]
    assert (view.id, view.role, view.weight) == ("f1", "lab", 2500)
    assert view.allocated == {"cpus": 1500, "mem": 10_000, "device/camera": 1000}
    assert view.allocations == 1
    assert shown.frameworks[F2].allocated == {}
    assert len(shown.frameworks) == 2


def test_offers_are_wanted_while_subscribed_connected_and_not_suppressed(
    bench: MasterBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wanted(framework_id: FrameworkId) -> bool:
        return window(bench).frameworks[framework_id].wants_offers

    first = bench.framework("f1", offers=True)
    bench.framework("f2")
    assert (wanted(F1), wanted(F2)) == (True, False)
    first.send(Suppress())
    assert not wanted(F1)
    first.send(Revive())
    assert wanted(F1)
    monkeypatch.setattr("edgerm_core.master.window.MAX_OFFERS_PER_FRAMEWORK", 0)
    assert not wanted(F1), "at its limit of offers"
    monkeypatch.undo()
    first.hang_up()
    assert not wanted(F1)


def test_a_declines_filter_holds_for_the_same_or_less_until_its_time_is_over(
    bench: MasterBench, recorder: Recorder
) -> None:
    framework = bench.framework("f1", offers=True)
    recorder.decisions = [OfferProposal(F1, AgentId("a1"))]
    bench.agent("a1", "cpus:4;mem:100")
    (message,) = framework.take(Offers)
    framework.send(Decline((message.offers[0].id,), refuse_s=10.0))
    a1 = AgentId("a1")
    same, less = Resources.parse("cpus:4;mem:100"), Resources.parse("cpus:1;mem:50")
    more = Resources.parse("cpus:4;mem:101")
    assert window(bench).refused(F1, a1, same)
    assert window(bench).refused(F1, a1, less)
    assert not window(bench).refused(F1, a1, more)
    assert not window(bench).refused(F1, AgentId("a2"), same), "a filter is about one agent"
    bench.advance(10.0)
    assert not window(bench).refused(F1, a1, same)


def test_a_framework_that_is_gone_refuses_everything(bench: MasterBench) -> None:
    assert window(bench).refused(F1, AgentId("a1"), Resources.parse("cpus:1"))
