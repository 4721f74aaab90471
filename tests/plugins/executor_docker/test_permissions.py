"""What the operator has not allowed a task does not get, by whatever way it asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgerm_executor_docker.config import DockerConfig
from edgerm_executor_docker.options import DockerOptions, Mount
from edgerm_executor_docker.permissions import (
    allowed_capabilities,
    allowed_devices,
    allowed_mounts,
    allowed_network,
    check_ulimits,
)

from edgerm_core.errors import ExecutorError, SpecError


@pytest.mark.parametrize(
    ("wanted", "ports", "expected"),
    [(None, (), "none"), (None, (80,), "bridge"), ("bridge", (), "bridge"), ("none", (), "none")],
)
def test_network_by_default(wanted: str | None, ports: tuple[int, ...], expected: str) -> None:
    options = DockerOptions("b", network=wanted, ports=ports)
    assert allowed_network(DockerConfig(), options) == expected


@pytest.mark.parametrize("network", ["host", "other", "container:x", "default"])
def test_network_that_is_not_allowed(network: str) -> None:
    with pytest.raises(SpecError, match="networks in"):
        allowed_network(DockerConfig(), DockerOptions("b", network=network))
    allowing = DockerConfig(networks=(network,))
    assert allowed_network(allowing, DockerOptions("b", network=network)) == network


@pytest.mark.parametrize("network", ["none", "host"])
def test_ports_on_a_network_that_maps_none(network: str) -> None:
    config = DockerConfig(networks=("none", "host"))
    with pytest.raises(SpecError, match="ports make no sense"):
        allowed_network(config, DockerOptions("b", network=network, ports=(80,)))


def test_mounts_follow_links_before_they_are_compared(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "data").mkdir(parents=True)
    secret = tmp_path / "base-secret"
    secret.mkdir()
    (base / "out").symlink_to(secret)
    (base / "in").symlink_to(base / "data")
    (tmp_path / "link-to-base").symlink_to(base)
    config = DockerConfig(allow_mounts=(str(tmp_path / "link-to-base"),))

    def real(host: Path | str) -> str:
        return allowed_mounts(config, DockerOptions("b", mounts=(Mount(str(host), "/x"),)))[0].host

    assert real(base) == str(base)
    assert real(base / "in") == str(base / "data")
    assert real(f"{base}/out/../base/data") == str(base / "data")
    for host in (base / "out", secret, f"{base}/../base-secret", "/", "/etc", f"{base}/out/x"):
        with pytest.raises(SpecError, match="allow_mounts"):
            real(host)
    with pytest.raises(SpecError, match="absolute"):
        real("relative")
    with pytest.raises(ExecutorError, match="there is no"):
        real(base / "absent")


def test_nothing_can_be_mounted_by_default() -> None:
    with pytest.raises(SpecError, match="allowed is nothing"):
        allowed_mounts(DockerConfig(), DockerOptions("b", mounts=(Mount("/srv", "/x"),)))


def test_devices_by_pattern() -> None:
    config = DockerConfig(allow_devices=("/dev/ttyUSB*", "/dev/i2c-1"))
    wanted = ("/dev/ttyUSB0", "/dev/i2c-1")
    assert allowed_devices(config, DockerOptions("b", devices=wanted)) == wanted
    for path in ("/dev/sda", "/dev/ttyUSB/../sda", "/etc/ttyUSB0", "/dev/ttyUSB0:/dev/sda"):
        with pytest.raises(SpecError, match="allow_devices"):
            allowed_devices(config, DockerOptions("b", devices=(path,)))


def test_capabilities_by_name() -> None:
    config = DockerConfig(allow_capabilities=("CAP_NET_RAW",))
    wanted = DockerOptions("b", cap_add=("net_raw", "NET_RAW"))
    assert allowed_capabilities(config, wanted) == ("NET_RAW",)
    with pytest.raises(SpecError, match="allow_capabilities"):
        allowed_capabilities(config, DockerOptions("b", cap_add=("SYS_ADMIN",)))


@pytest.mark.parametrize("name", ["rtprio", "nice"])
def test_limits_that_give_a_task_priority_over_all_others(name: str) -> None:
    wanted = DockerOptions("b", ulimits={"nofile": 64, name: 1})
    with pytest.raises(SpecError, match=f"{name} is not allowed on this agent.*SYS_NICE"):
        check_ulimits(DockerConfig(), wanted)
    check_ulimits(DockerConfig(allow_capabilities=("SYS_NICE",)), wanted)
    check_ulimits(DockerConfig(), DockerOptions("b", ulimits={"nofile": 64}))
