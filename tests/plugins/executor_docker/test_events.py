"""What engines tell: Docker's events and Podman's, and containers as both describe them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from edgerm_executor_docker.events import Happening, events_query, read_event, read_state
from edgerm_executor_docker.exits import ExitRecord


def event(action: str, **attributes: str) -> dict[str, Any]:
    return {"Action": action, "Actor": {"ID": "c1", "Attributes": attributes}}


def test_end_and_kill_for_memory() -> None:
    assert read_event(event("die", exitCode="3")) == Happening("c1", "die", 3)
    assert read_event(event("oom")) == Happening("c1", "oom")


@pytest.mark.parametrize(
    "raw",
    [
        {},
        event("start"),
        event("exec_die", exitCode="0"),
        {"Action": "die"},
        {"Action": "die", "Actor": {"Attributes": None}},
        {"Action": "die", "Actor": "c1"},
    ],
)
def test_what_is_of_no_interest(raw: dict[str, Any]) -> None:
    assert read_event(raw) is None


def test_end_without_a_code() -> None:
    assert read_event({"Action": "die", "Actor": {"ID": "c1"}}) == Happening("c1", "die", None)
    assert read_event(event("die", exitCode="-1")) == Happening("c1", "die", None)


def test_only_this_agents_containers_are_asked_for() -> None:
    filters = json.loads(events_query("me")["filters"])
    assert filters["label"] == ["edgerm.agent=me"]
    assert {"die", "oom"} <= set(filters["event"])


def test_container_that_has_ended() -> None:
    state = read_state(
        {
            "State": {
                "Status": "exited",
                "ExitCode": 137,
                "OOMKilled": True,
                "Error": "",
                "Pid": 0,
                "FinishedAt": "2023-11-14T22:13:20Z",
            },
            "Config": {"Labels": {"edgerm.agent": "me"}, "StopSignal": "SIGQUIT", "User": "app"},
        }
    )
    assert state.ended
    assert state.record == ExitRecord(137, out_of_memory=True)
    assert (state.agent, state.stop_signal, state.user) == ("me", "SIGQUIT", "app")


def test_container_that_runs() -> None:
    state = read_state({"State": {"Status": "running", "Pid": 7}, "Config": {"Labels": None}})
    assert not state.ended
    assert (state.pid, state.agent) == (7, "")


def test_answer_that_says_nothing() -> None:
    assert not read_state({}).ended
