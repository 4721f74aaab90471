"""The order for a container: what is in it, and what never is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from edgerm_executor_docker.options import DockerOptions, Mount, read_options
from edgerm_executor_docker.request import (
    Grants,
    build_request,
    container_name,
    mem_limit_bytes,
    named_by_labels,
)

from edgerm_core.errors import SpecError
from edgerm_core.interfaces import TaskLaunch
from edgerm_core.tasks import Volume

from .workloads import launch

GRANTS = Grants(
    agent="0123456789abcdef",
    network="none",
    mounts=(),
    devices=(),
    capabilities=(),
    pids_limit=99,
    work_dir=Path("/data/work"),
    log_driver="local",
    log_bytes=1000,
    init=True,
    disk_limit=False,
)


def build(run: TaskLaunch, **grants: Any) -> dict[str, Any]:
    options: DockerOptions = read_options(run.name, run.implementation)
    request = build_request(run, options, msgspec.structs.replace(GRANTS, **grants))
    json.dumps(request)
    return request


def test_least_that_a_task_gets() -> None:
    run = launch("echo", 1, 2.5, env={"A": "b=c"})
    request = build(run)
    host = request["HostConfig"]
    assert request["Cmd"] == ["echo", "1", "2.5"]
    assert "Entrypoint" not in request
    assert "A=b=c" in request["Env"]
    assert "EDGERM_RESULT_FILE=/edgerm/work/.edgerm-result" in request["Env"]
    assert request["NetworkDisabled"] is True
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == []
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["PidsLimit"] == 99
    assert host["Init"] is True
    assert host["Devices"] == []
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/data/work", "Target": "/edgerm/work", "ReadOnly": False}
    ]
    assert not {"Memory", "CpuQuota", "StorageOpt", "Binds", "PortBindings"} & set(host)
    assert request["Labels"]["edgerm.agent"] == GRANTS.agent


def test_labels_name_their_own_container() -> None:
    run = launch("x")
    assert named_by_labels(build(run)["Labels"]) == container_name(GRANTS.agent, run)


def test_limits() -> None:
    host = build(launch("x", resources="cpus:1.5;mem:64;disk:10"))["HostConfig"]
    assert (host["CpuPeriod"], host["CpuQuota"], host["CpuShares"]) == (100_000, 150_000, 1536)
    assert host["Memory"] == host["MemorySwap"] == 64 << 20
    assert "StorageOpt" not in host
    limited = build(launch("x", resources="disk:10"), disk_limit=True)["HostConfig"]
    assert limited["StorageOpt"] == {"size": str(10 << 20)}
    tiny = build(launch("x", resources="cpus:0.001"))["HostConfig"]
    assert (tiny["CpuQuota"], tiny["CpuShares"]) == (1_000, 2)
    large = build(launch("x", resources="cpus:300"))["HostConfig"]
    assert (large["CpuQuota"], large["CpuShares"]) == (30_000_000, 262_144)


def test_ports_are_bound_to_granted_ones_only() -> None:
    run = launch("x", resources="ports:[31000-31001,31005-31005]", ports={"80": 2, "53/udp": 0})
    request = build(run, network="bridge")
    assert request["NetworkDisabled"] is False
    assert request["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert request["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "31005"}],
        "53/udp": [{"HostPort": "31000"}],
    }
    with pytest.raises(SpecError, match="3 were granted"):
        build(launch("x", resources="ports:[1-3]", ports={"80": 3}))
    with pytest.raises(SpecError, match="0 were granted"):
        build(launch("x", ports=[80]))


def test_everything_else_that_can_be_asked_for() -> None:
    run = launch(
        entrypoint=["a", "b"],
        working_dir="/w",
        user="1:2",
        read_only=True,
        tmpfs={"/t": 3},
        ulimits={"nofile": [1, 2], "core": 0},
        shm_mib=4,
        stop_signal="INT",
        labels={"room": "cellar"},
        init=False,
    )
    request = build(run, devices=("/dev/b",), capabilities=("NET_RAW",))
    host = request["HostConfig"]
    assert "Cmd" not in request
    assert request["Entrypoint"] == ["a", "b"]
    assert (request["WorkingDir"], request["User"], request["StopSignal"]) == ("/w", "1:2", "2")
    assert request["Labels"]["room"] == "cellar"
    assert host["ReadonlyRootfs"] is True
    assert host["Tmpfs"] == {"/t": "rw,nosuid,nodev,size=3m"}
    assert host["Ulimits"] == [
        {"Name": "nofile", "Soft": 1, "Hard": 2},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]
    assert host["ShmSize"] == 4 << 20
    assert host["Init"] is False
    assert host["CapAdd"] == ["NET_RAW"]


def test_devices_of_grant_and_options_come_once() -> None:
    run = launch("x", device_nodes=("/dev/a", "/dev/b"))
    devices = build(run, devices=("/dev/b", "/dev/c"))["HostConfig"]["Devices"]
    assert [each["PathOnHost"] for each in devices] == ["/dev/a", "/dev/b", "/dev/c"]
    assert {each["CgroupPermissions"] for each in devices} == {"rw"}


def test_mounts_of_volumes_module_and_machine() -> None:
    run = launch(
        "x",
        blob_path=Path("/blobs/one"),
        volumes=(
            (Volume("/data", read_only=True), Path("/volumes/data")),
            (Volume("cache"), Path("/volumes/cache")),
        ),
    )
    mounts = build(run, mounts=(Mount("/srv", "/srv"),))["HostConfig"]["Mounts"]
    assert [(each["Source"], each["Target"], each["ReadOnly"]) for each in mounts] == [
        ("/data/work", "/edgerm/work", False),
        ("/blobs/one", "/edgerm/module", True),
        ("/volumes/data", "/data", True),
        ("/volumes/cache", "/edgerm/work/cache", False),
        ("/srv", "/srv", True),
    ]


@pytest.mark.parametrize("path", ["/edgerm/work", "/edgerm/work/", "/a,b", "/a/../b", "/", '/a"b'])
def test_volume_that_cannot_be_where_it_wants(path: str) -> None:
    with pytest.raises(SpecError):
        build(launch("x", volumes=((Volume(path), Path("/v")),)))


def test_engines_log_is_bounded_on_both() -> None:
    docker = build(launch("x"))["HostConfig"]["LogConfig"]
    assert docker["Config"] == {"max-size": "1000", "max-file": "2", "compress": "false"}
    podman = build(launch("x"), log_driver="json-file")["HostConfig"]["LogConfig"]
    assert podman["Config"] == {"max-size": "1000"}


def test_name_tells_agent_and_run() -> None:
    run = msgspec.structs.replace(launch("x", task_id=7), attempt=2, restarts=3)
    assert container_name("0123456789abcdef", run) == "edgerm-01234567-t7.2.3"


def test_memory_in_bytes() -> None:
    assert mem_limit_bytes(launch("x")) is None
    assert mem_limit_bytes(launch("x", resources="mem:0.5")) == 1 << 19
