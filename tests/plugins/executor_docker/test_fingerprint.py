"""The fingerprint says what is enforced, and what is not."""

from __future__ import annotations

import msgspec
from edgerm_executor_docker.fingerprint import fingerprint_absence, fingerprint_engine, warnings

from .test_facts import read


def test_engine_that_works() -> None:
    found = fingerprint_engine(read())
    assert found.healthy
    assert found.version == "Docker 20.10.24"
    assert found.capabilities["mem_limit"]
    assert not found.capabilities["swap_limit"]
    assert not found.capabilities["disk_limit"]
    assert found.attributes["storage_driver"] == "overlay2"


def test_engine_for_another_system_is_of_no_use() -> None:
    found = fingerprint_engine(read(OSType="windows"))
    assert not found.healthy
    assert "windows" in found.problem


def test_absent_engine() -> None:
    found = fingerprint_absence("nobody there")
    assert (found.healthy, found.problem) == (False, "nobody there")


def test_each_limit_that_is_not_enforced_has_its_sentence() -> None:
    assert warnings(msgspec.structs.replace(read(), swap_limit=True)) == []
    assert "swap" in warnings(read())[0]
    weak = read(MemoryLimit=False, CpuCfsQuota=False, PidsLimit=False)
    text = " ".join(warnings(weak))
    assert "cgroup_enable=memory" in text
    assert "CONFIG_CFS_BANDWIDTH" in text
    assert "pids" in text
