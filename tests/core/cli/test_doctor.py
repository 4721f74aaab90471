from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import Result

from edgerm_core.cli.checks import Check
from edgerm_core.cli.doctor import failed_requirements, format_check
from edgerm_core.errors import TransportError

FOUND = [Check("python", "ok", "3.11"), Check("docker", "missing", "no socket", "install it")]


def test_line_with_and_without_a_fix() -> None:
    assert click.unstyle(format_check(FOUND[0])) == "ok      python             3.11"
    assert click.unstyle(format_check(FOUND[1])).splitlines()[1].strip() == "-> install it"


def test_only_required_checks_fail_it() -> None:
    assert failed_requirements(FOUND, ()) == []
    assert failed_requirements(FOUND, ("python",)) == []
    assert failed_requirements(FOUND, ("docker", "python")) == ["docker is required: no socket; install it"]
    with pytest.raises(click.UsageError, match="no check gpu: expected some of python, docker"):
        failed_requirements(FOUND, ("gpu",))


CLUSTER = {"version": "0.1.0", "agents": 3, "agents_ready": 2}


def test_json_and_exit_code(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.rows["cluster"] = [CLUSTER]
    result = invoke("doctor", "--json", "--require", "master", "--require", "python")
    assert result.return_value == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows["master"]) == ["name", "status", "detail", "fix"]
    assert "2 of 3 agents ready" in rows["master"]["detail"]


def test_required_master_that_does_not_answer(operator: Any, invoke: Callable[..., Result]) -> None:
    operator.error = TransportError("nobody answers")
    result = invoke("doctor", "--require", "master")
    assert result.return_value == 1
    assert "nobody answers" in result.stderr
    assert "missing master" in result.stdout
