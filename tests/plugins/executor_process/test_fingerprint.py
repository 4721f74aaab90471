"""The fingerprint says what is true here."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_executor_process.fingerprint import fingerprint_process

from edgerm_core.cgroups import Cgroups, Enforcement

SOME = Cgroups(
    "v1", Enforcement("cpu", False, "no"), Enforcement("memory", True), Enforcement("pids", False, "no")
)


def test_capabilities_are_what_control_groups_enforce(tmp_path: Path) -> None:
    fingerprint = fingerprint_process(SOME, tmp_path / "not" / "yet" / "there")
    assert fingerprint.healthy
    assert fingerprint.capabilities["mem_limit"]
    assert not fingerprint.capabilities["cpu_limit"]
    assert not fingerprint.capabilities["pids_limit"]
    assert fingerprint.attributes["cgroups"] == "v1"


def test_directory_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    fingerprint = fingerprint_process(SOME, tmp_path / "state")
    assert not fingerprint.healthy
    assert str(tmp_path) in fingerprint.problem


def test_other_systems_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "Linux only" in fingerprint_process(SOME, tmp_path).problem
