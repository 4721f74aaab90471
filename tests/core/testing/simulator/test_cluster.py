"""Whole plans: they settle, they repeat themselves exactly, and what is wrong in them is reported."""

from __future__ import annotations

import pytest

from edgerm_core.testing.simulator import cluster as clusters
from edgerm_core.testing.simulator import plan as plans
from edgerm_core.testing.simulator.cluster import describe, run_plan
from edgerm_core.testing.simulator.draw import draw

from .conftest import job, plan_of


def test_a_quiet_plan_settles_with_all_tasks_done() -> None:
    outcome = run_plan(plan_of(plans.SubmitTasks(1.0, "f1", "w0", job())))
    assert outcome.failure == ""
    assert outcome.counts["FINISHED"] == 1
    assert outcome.settled_s == 0.0


def test_a_plan_repeats_itself_exactly() -> None:
    plan = draw(3)
    assert run_plan(plan) == run_plan(plan)


def test_keeping_the_story_changes_nothing() -> None:
    plan = plan_of(plans.SubmitTasks(1.0, "f1", "w0", job()))
    quiet, told = run_plan(plan), run_plan(plan, keep_story=True)
    assert quiet.digest == told.digest
    assert not quiet.lines
    assert any("*** SubmitTasks framework=f1 key=w0" in line for line in told.lines)


FAULTS = [
    plans.Cut(3.0, "a1", (0, 1), 100.0),
    plans.Cut(3.0, "*", (1,), 30.0),
    plans.Slow(3.0, "a1", 5.0, 20.0),
    plans.Reset(3.0, "f1"),
    plans.NatForgets(3.0, "a1"),
    plans.Moved(3.0, "a1", "m", 10.0),
    plans.AgentKilled(3.0, "a1", 10.0),
    plans.PowerLost(3.0, "a1", 10.0),
    plans.Rebooted(3.0, "a1", 10.0),
    plans.AgentDiskFull(3.0, "a1", 10.0),
    plans.ExecutorSick(3.0, "a1", "process", 10.0),
    plans.Unplugged(3.0, "a1", "cam0", 10.0),
    plans.ClockSet(3.0, "a1", -1e9),
    plans.ClockSet(3.0, "m", 1e7),
    plans.MasterKilled(3.0, "now", 5.0),
    plans.MasterKilled(3.0, "power", 5.0),
    plans.MasterKilled(3.0, "before-commit", 5.0),
    plans.MasterKilled(3.0, "after-commit", 5.0),
    plans.MasterKilled(3.0, "half-sent", 5.0),
    plans.MasterStopped(3.0, 5.0),
    plans.MasterDiskFull(3.0, 20.0),
    plans.MasterDiskFull(3.0, 100.0),
    plans.MasterDiskSlow(3.0, 2.0, 20.0),
    plans.Drained(3.0, "a1", 20.0),
    plans.Forgotten(3.0, "a1"),
    plans.OperatorKills(3.0, "f1", "w0"),
    plans.OperatorAsks(3.0, "tasks", 1),
    plans.TakeOver(3.0, "f1"),
    plans.FrameworkDies(3.0, "f1", 5.0),
    plans.Misbehave(3.0, "f1", "garbage"),
    plans.Misbehave(3.0, "f1", "foreign-offers"),
    plans.Misbehave(3.0, "f1", "foreign-kills"),
    plans.Misbehave(3.0, "f1", "flood"),
    plans.Misbehave(3.0, "f1", "wrong-role"),
    plans.SubmitAgain(3.0, "f1", "w0"),
    plans.KillKey(3.0, "f1", "w0"),
    plans.Leave(3.0, "f1"),
    plans.Suppressed(3.0, "f1", 10.0),
    plans.Upload(3.0, 1),
]


@pytest.mark.parametrize("action", FAULTS, ids=describe)
def test_every_kind_of_action_can_happen_and_heals(action: plans.AnyAction) -> None:
    assert {type(each) for each in FAULTS} | {plans.SwitchOn, plans.Join, plans.SubmitTasks} == set(
        plans.AnyAction.__args__
    )
    outcome = run_plan(plan_of(plans.SubmitTasks(1.0, "f1", "w0", job(run_s=20.0)), action))
    assert outcome.failure == ""


def test_an_action_about_nobody_does_nothing() -> None:
    assert run_plan(plans.Plan(1, 10.0, actions=(plans.AgentKilled(1.0, "a9", 1.0),))).failure == ""


def test_what_never_settles_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SETTLE_S", 30.0)
    outcome = run_plan(plan_of(plans.SubmitTasks(1.0, "f1", "w0", job(run_s=1e6))))
    assert "not settled 30 s after the last fault" in outcome.failure
    assert "t1 (w0) is RUNNING" in outcome.failure


def test_an_exception_of_a_machine_is_a_failure_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgerm_core.agent.runs import Runs

    def launch(self: Runs, *_: object) -> None:
        raise KeyError("t1")

    monkeypatch.setattr(Runs, "launch", launch)
    outcome = run_plan(plan_of(plans.SubmitTasks(1.0, "f1", "w0", job())))
    assert outcome.failure.startswith("KeyError: 't1'")
    assert "state.py" in outcome.failure
