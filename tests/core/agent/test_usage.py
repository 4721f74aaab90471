"""What the master is told of what tasks use."""

from __future__ import annotations

import pytest

from edgerm_core.agent.usage import UsageReports, usage_every_s
from edgerm_core.ids import SessionId, TaskId
from edgerm_core.interfaces import TaskStats
from edgerm_core.limits import USAGE_EVERY_S, USAGE_TASKS
from edgerm_core.messages import TaskUsage
from edgerm_core.testing.agents import run_id

S1, S2 = SessionId(1), SessionId(2)


@pytest.mark.parametrize(
    ("configured", "link", "every_s"),
    [
        (None, "lan", USAGE_EVERY_S),
        (None, "constrained", 0.0),
        (5.0, "constrained", 5.0),
        (0.0, "lan", 0.0),
    ],
)
def test_a_constrained_link_carries_none_unless_the_operator_asks(
    configured: float | None, link: str, every_s: float
) -> None:
    assert usage_every_s(configured, {"link.class": link}) == every_s


def test_first_figures_are_told_in_the_units_of_the_wire() -> None:
    stats = TaskStats(1.2345, 5 << 20, 6 << 20, 1000, 2000)
    (message,) = UsageReports().changed(S1, {run_id(7, 2, restarts=3): stats})
    assert message.tasks == (TaskUsage(TaskId(7), 2, 1234, 5120, 6144, 1000, 2000),)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (TaskStats(1.009, 1 << 20, net_rx_bytes=0), False),
        (TaskStats(1.010, 1 << 20, net_rx_bytes=0), True),
        (TaskStats(1.0, (1 << 20) + (1 << 16), net_rx_bytes=0), False),
        (TaskStats(1.0, (1 << 20) + (1 << 17), net_rx_bytes=0), True),
        (TaskStats(1.0, 1 << 19, net_rx_bytes=0), True),
        (TaskStats(1.0, 1 << 20, net_rx_bytes=511), False),
        (TaskStats(1.0, 1 << 20, net_rx_bytes=512), True),
    ],
)
def test_only_what_has_changed_enough_is_told_again(after: TaskStats, told: bool) -> None:
    reports = UsageReports()
    reports.changed(S1, {run_id(): TaskStats(1.0, 1 << 20, net_rx_bytes=0)})
    assert bool(reports.changed(S1, {run_id(): after})) == told


def test_small_changes_add_up_to_one_that_is_told() -> None:
    reports = UsageReports()
    told = [reports.changed(S1, {run_id(): TaskStats(0.004 * step)}) for step in range(1, 11)]
    assert "".join("1" if messages else "0" for messages in told) == "1001001001"


def test_figures_that_nobody_has_are_not_told() -> None:
    assert UsageReports().changed(S1, {run_id(): TaskStats()}) == []


def test_another_session_is_told_everything() -> None:
    reports = UsageReports()
    stats = {run_id(): TaskStats(1.0)}
    assert reports.changed(S1, stats)
    assert not reports.changed(S1, stats)
    assert reports.changed(S2, stats)


def test_what_has_ended_is_forgotten() -> None:
    reports = UsageReports()
    assert reports.changed(S1, {run_id(1): TaskStats(1.0)})
    assert not reports.changed(S1, {})
    assert reports.changed(S1, {run_id(1): TaskStats(1.0)})


def test_many_tasks_go_in_messages_of_bounded_size() -> None:
    stats = {run_id(number): TaskStats(1.0) for number in range(1, 2 * USAGE_TASKS + 2)}
    messages = UsageReports().changed(S1, stats)
    assert [len(message.tasks) for message in messages] == [USAGE_TASKS, USAGE_TASKS, 1]
