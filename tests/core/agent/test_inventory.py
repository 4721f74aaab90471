"""What the agent offers, out of what there is and what the config says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerm_core.agent.inventory import Inventory, detect_resources, offered_resources
from edgerm_core.agents import Fingerprint
from edgerm_core.config import AgentConfig
from edgerm_core.errors import ConfigError
from edgerm_core.ids import AgentId
from edgerm_core.resources import Device, Resources

DETECTED = Resources.parse("cpus:4;mem:1000;disk:5000;ports:[31000-31999]")


@pytest.mark.parametrize(
    ("configured", "reserve", "offered"),
    [
        ("", "", "cpus:4;mem:1000;disk:5000;ports:[31000-31999]"),
        ("cpus:2;mem:9999", "", "cpus:2;mem:1000;disk:5000;ports:[31000-31999]"),
        ("", "cpus:1;mem:2000", "cpus:3;disk:5000;ports:[31000-31999]"),
        ("cpus:4", "cpus:1", "cpus:3;mem:1000;disk:5000;ports:[31000-31999]"),
        ("cpus:2", "cpus:1", "cpus:2;mem:1000;disk:5000;ports:[31000-31999]"),
        (
            "radio_bytes:100;zones:{a,b}",
            "",
            "cpus:4;mem:1000;disk:5000;ports:[31000-31999];radio_bytes:100;zones:{a,b}",
        ),
        (
            "ports:[80,8000-8009]",
            "ports:[8005]",
            "cpus:4;mem:1000;disk:5000;ports:[80,8000-8004,8006-8009]",
        ),
    ],
)
def test_offered(configured: str, reserve: str, offered: str) -> None:
    assert offered_resources(
        DETECTED, Resources.parse(configured), Resources.parse(reserve)
    ) == Resources.parse(offered)


def test_this_machine_has_something(tmp_path: Path) -> None:
    detected = detect_resources(tmp_path)
    assert min(detected.scalars[name] for name in ("cpus", "mem", "disk")) > 0


def test_devices_count_as_resources_and_executors_describe_themselves(tmp_path: Path) -> None:
    inventory = Inventory(AgentConfig(attributes={"os": "mine"}), AgentId("a1"), tmp_path)
    wasm = Fingerprint("wasm", attributes={"features": ["simd"], "aot": True})
    info = inventory.info([wasm], [Device("cam0", "camera", slots=2)])
    assert info.totals.devices == {"cam0": 2}
    assert info.attributes["executor.wasm.features"] == "['simd']"
    assert info.attributes["executor.wasm.aot"] is True
    assert info.attributes["os"] == "mine", "the config wins"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (AgentConfig(resources="cpus=4"), "agent.resources"),
        (AgentConfig(reserve="cpus:x"), "agent.reserve"),
        (AgentConfig(name="no spaces please"), "agent.name"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, config: AgentConfig, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Inventory(config, AgentId("a1"), tmp_path)
