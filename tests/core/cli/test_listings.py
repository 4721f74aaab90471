from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from edgerm_core.cli.listings import AGENT_COLUMNS, FRAMEWORK_COLUMNS, task_columns
from edgerm_core.cli.output import format_table

TASK = {
    "id": "t5",
    "number": 5,
    "name": "hello",
    "framework": "lab",
    "framework_id": "lab-1",
    "state": "FAILED",
    "reason": "exit-code",
    "message": "exited with code 3\nmore",
    "agent": "pi4",
    "agent_id": "pi4-1",
    "attempt": 1,
    "restarts": 2,
    "executor": "process",
    "resources": {"cpus": 0.5, "mem": 64.0},
    "submitted_at": 1000.0,
    "changed_at": 1100.0,
    "exit_code": 3,
    "signal": None,
    "result": b"\x01",
    "desired": "stop",
}


def test_task_row_for_a_person() -> None:
    titles, line, rest = format_table(task_columns(1110.0), [TASK]).split("\n")
    assert rest == ""
    assert titles.split() == (
        [
            "ID",
            "NAME",
            "FRAMEWORK",
            "STATE",
            "AGENT",
            "EXECUTOR",
            "RESOURCES",
            "USES",
            "RESTARTS",
            "SINCE",
            "WHY",
        ]
    )
    assert line.split(maxsplit=10) == [
        "t5", "hello", "lab", "FAILED", "pi4", "process", "cpus=0.5", "mem=64", "2", "10s",
        "exit-code: exited with code 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        (None, ""),
        ({"cpus": 0.4167, "cpu_s": 9.0, "mem_mib": 12.34}, "0.42 cpus, 12.3 MiB"),
        ({"cpus": None, "cpu_s": 9.04, "mem_mib": None}, "9.0 s cpu"),
        ({"net_rx_bytes": 1234, "net_tx_bytes": 98}, "net 1.2k/98"),
        ({"net_rx_bytes": 56_700_000, "net_tx_bytes": 7_890_000_000}, "net 57M/7.9G"),
        ({"cpus": None, "cpu_s": None, "mem_mib": None}, ""),
    ],
)
def test_what_a_task_uses_is_told_in_units_a_person_reads(usage: Any, text: str) -> None:
    titles, line, _ = format_table(task_columns(1110.0), [{**TASK, "usage": usage}]).split("\n")
    assert line[titles.index("USES") : titles.index("RESTARTS")].strip() == text


def test_waiting_task_without_agent_still_makes_a_row() -> None:
    row = {**TASK, "agent": "", "agent_id": "", "executor": "", "resources": "cpus:1", "message": ""}
    assert "exit-code" in format_table(task_columns(1110.0), [row])


def test_agent_row_marks_what_is_unhealthy() -> None:
    row = {
        "id": "a-1",
        "name": "pi4",
        "state": "READY",
        "tasks": 3,
        "free": {"cpus": 1.0},
        "totals": {"cpus": 4.0},
        "executors": [{"name": "wasm", "healthy": True}, {"name": "docker", "healthy": False}],
        "devices": [{"id": "cam0", "healthy": True}],
        "last_heard_s": 3.2,
    }
    line = format_table(AGENT_COLUMNS, [row]).splitlines()[1]
    assert line.split() == (
        ["pi4", "a-1", "READY", "3", "cpus=1", "cpus=4", "wasm", "docker(unhealthy)", "cam0", "3s", "ago"]
    )


def test_agents_behind_a_gateway_show_it_and_others_leave_the_column_out(
    operator: Any, invoke: Callable[..., Result]
) -> None:
    operator.rows["agents"] = [{"name": "pi4", "via": ""}]
    assert "VIA" not in invoke("agents").stdout
    operator.rows["agents"] = [{"name": "pi4", "via": ""}, {"name": "s1", "id": "a-2", "via": "pi4"}]
    head, _, line = invoke("agents").stdout.splitlines()[:3]
    assert head.split()[:3] == ["AGENT", "ID", "VIA"]
    assert line.split() == ["s1", "a-2", "pi4"]


def test_why_an_executor_does_not_work_is_said_below_the_agents(
    operator: Any, invoke: Callable[..., Result]
) -> None:
    sick = {"name": "docker", "healthy": False, "problem": "no engine answers at /run/docker.sock"}
    operator.rows["agents"] = [{"name": "pi4", "executors": [{"name": "wasm", "healthy": True}, sick]}]
    assert invoke("agents").stderr == "pi4: executor docker: no engine answers at /run/docker.sock\n"
    assert invoke("agents", "--json").stderr == ""


def test_framework_share_is_shown_in_percent() -> None:
    row = {
        "id": "f",
        "name": "lab",
        "state": "CONNECTED",
        "weight": 1.0,
        "share": 0.125,
        "dominant": "cpus",
    }
    assert "12.5%" in format_table(FRAMEWORK_COLUMNS, [row])


def test_ps_asks_for_live_tasks_newest_first_and_shows_them_by_age(
    operator: Any, invoke: Callable[..., Result]
) -> None:
    operator.rows["tasks"] = [{**TASK, "id": "t6"}, TASK]
    result = invoke("ps")
    assert operator.requests[-1] == ("tasks", {"limit": 1000, "newest": True, "ended": False})
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "t5", "t6"]


def test_ps_with_a_final_state_asks_for_ended_tasks(operator: Any, invoke: Callable[..., Result]) -> None:
    invoke("ps", "--state", "failed", "--framework", "lab", "--limit", "5")
    assert operator.requests[-1] == (
        "tasks",
        {"limit": 5, "newest": True, "ended": True, "framework": "lab", "states": ["FAILED"]},
    )


def test_json_is_the_rows_and_nothing_else_on_stdout(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["tasks"] = [TASK, TASK]
    result = invoke("ps", "--json", "--limit", "1")
    assert json.loads(result.stdout) == [{**TASK, "result": "AQ=="}]
    assert "1 of 2 shown" in result.stderr


def test_no_rows_is_an_empty_array_or_a_sentence(operator: Any, invoke: Callable[..., Result]) -> None:
    for command in ("ps", "agents", "frameworks"):
        assert json.loads(invoke(command, "--json").stdout) == []
        result = invoke(command)
        assert result.stdout == ""
        assert result.stderr.startswith("no ")


def test_insecure_and_master_reach_the_connection(operator: Any, invoke: Callable[..., Result]) -> None:
    invoke("--master", "ws://192.0.2.1:7070", "--insecure", "agents")
    assert operator.requests[0] == ("connect", ("ws://192.0.2.1:7070",), True)
