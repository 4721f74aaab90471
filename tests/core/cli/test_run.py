from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import Result

from edgerm_core.cli.run import (
    RunOptions,
    build_draft,
    merge_resources,
    parse_device,
    parse_file,
    parse_option,
    parse_pair,
    parse_port,
    parse_value,
    parse_volume,
)
from edgerm_core.client.specs import Draft
from edgerm_core.errors import EdgermError, SpecError
from edgerm_core.resources import DeviceRequest
from edgerm_core.tasks import File, Implementation, RestartPolicy, Volume

PROCESS = RunOptions(command=("sh", "-c", "echo hi"), process=True)


def draft_of(**changes: object) -> Draft:
    return build_draft(msgspec.structs.replace(PROCESS, **changes))


def test_command_becomes_a_process_task_with_default_resources() -> None:
    spec = draft_of().spec
    assert spec.name == "sh"
    assert spec.implementations[0].executor == "process"
    assert spec.implementations[0].args == ("sh", "-c", "echo hi")
    assert str(spec.resources) == "cpus:1;mem:128"
    assert spec.restart == RestartPolicy()


def test_every_option_reaches_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "x=y")
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    data = tmp_path / "data.bin"
    data.write_bytes(b"1")
    draft = draft_of(
        name="hello",
        cpus="0.5",
        mem="64MiB",
        resources="ports:2",
        env=("A=1", "FROM_HERE", "EMPTY="),
        count=3,
        constraints=("os==linux",),
        files=(str(script), f"{data}:in/data.bin"),
        volumes=("scratch", "kept:data"),
        time_limit_s=60.0,
        restart="failure",
        devices=("camera", "dongle:2"),
        options=("user=nobody", "pids_limit=7"),
    )
    spec = draft.spec
    assert spec.name == "hello"
    assert str(msgspec.structs.replace(spec.resources, devices=())) == "cpus:0.5;mem:64;ports:2"
    assert spec.resources.devices == (DeviceRequest("camera"), DeviceRequest("dongle", 2))
    assert spec.implementations[0].options == {"user": "nobody", "pids_limit": 7}
    assert spec.env == {"A": "1", "FROM_HERE": "x=y", "EMPTY": ""}
    assert spec.instances == 3
    assert [str(constraint) for constraint in spec.constraints] == ["os==linux"]
    first, second = draft.blobs
    assert spec.files == (File("run.sh", first.id, True), File("in/data.bin", second.id, False))
    assert spec.volumes == (Volume("scratch"), Volume("data", "kept"))
    assert spec.time_limit_s == 60.0
    assert spec.restart.on == "failure"


def test_an_image_becomes_a_container_task_with_a_port_of_the_agent_for_each_of_its_own() -> None:
    spec = build_draft(
        RunOptions(image="registry.example:5000/site/web:2", command=("httpd",), ports=("80", "53/udp"))
    ).spec
    assert spec.name == "web"
    assert str(spec.resources) == "cpus:1;mem:128;ports:2"
    options = {"image": "registry.example:5000/site/web:2", "ports": [80, "53/udp"]}
    assert spec.implementations == (Implementation("docker", args=("httpd",), options=options),)
    assert build_draft(RunOptions(image="x")).spec.implementations[0].args == ()


def test_any_executor_can_be_named() -> None:
    options = RunOptions(executor="docker", command=("true",), options=("image=busybox:1", "init=false"))
    spec = build_draft(options).spec
    assert spec.name == "docker"
    made = Implementation("docker", args=("true",), options={"image": "busybox:1", "init": False})
    assert spec.implementations == (made,)


def test_function_of_a_module_gets_typed_values(tmp_path: Path) -> None:
    module = tmp_path / "add.wasm"
    module.write_bytes(b"\0asm\1\0\0\0")
    options = RunOptions(wasm=module, function="add", args=("2", "2.5", "x"), command=("-3",))
    implementation = build_draft(options).spec.implementations[0]
    assert implementation.args == (2, 2.5, "x", "-3")
    assert implementation.options == {"function": "add"}
    assert build_draft(RunOptions(wasm=module, command=("2",))).spec.implementations[0].args == ("2",)


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(),
        RunOptions(command=("echo",)),
        RunOptions(process=True),
        RunOptions(process=True, wasm=Path("x.wasm"), command=("echo",)),
        RunOptions(process=True, command=("echo",), function="f"),
        RunOptions(process=True, command=("echo",), args=("1",)),
        RunOptions(wasm=Path("x.wasm"), args=("1",)),
        RunOptions(process=True, command=("echo",), cpus="1", resources="cpus:2"),
        RunOptions(process=True, image="busybox", command=("echo",)),
        RunOptions(executor="docker", image="busybox"),
        RunOptions(image="busybox", function="f"),
        RunOptions(process=True, command=("echo",), ports=("80",)),
        RunOptions(image="busybox", ports=("80",), resources="ports:1"),
        RunOptions(image="busybox", ports=("0",)),
        RunOptions(image="busybox", options=("network",)),
        RunOptions(image="busybox", devices=("camera:two",)),
    ],
)
def test_contradictions_are_usage_errors(options: RunOptions) -> None:
    with pytest.raises(click.UsageError):
        build_draft(options)


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": "many"},
        {"resources": "ports"},
        {"constraints": ("os",)},
        {"name": "not a name"},
        {"files": ("no-such-file",)},
        {"files": (f"{__file__}:/etc/passwd",)},
        {"volumes": ("../up",)},
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(EdgermError):
        draft_of(**changes)


def test_defaults_fill_only_what_nobody_named() -> None:
    def merge(**changes: object) -> str:
        return merge_resources(msgspec.structs.replace(PROCESS, **changes))

    assert merge() == "cpus:1;mem:128MiB"
    assert merge(resources="mem:64; gpus:1;") == "mem:64; gpus:1;cpus:1"
    assert merge(cpus="0", resources="mem:64") == "mem:64;cpus:0"


def test_small_parsers() -> None:
    assert [parse_value(text) for text in ("7", "-1", "1e3", "0x1", "")] == [7, -1, 1000.0, "0x1", ""]
    assert parse_file("dir/x.bin") == ("x.bin", "dir/x.bin")
    assert parse_file("dir/x.bin:y") == ("y", "dir/x.bin")
    assert parse_volume("data") == ("", "data")
    assert parse_volume("name:data") == ("name", "data")
    assert parse_pair("A=b=c", "--env") == ("A", "b=c")
    assert [parse_port(text) for text in ("80", "53/udp")] == [80, "53/udp"]
    assert [parse_device(text) for text in ("cam", "cam:3")] == [
        DeviceRequest("cam"),
        DeviceRequest("cam", 3),
    ]
    assert parse_option("a=b=c") == ("a", "b=c")
    assert parse_option("n=5") == ("n", 5)
    assert parse_option('n="5"') == ("n", "5")
    assert parse_option("on=true") == ("on", True)
    assert parse_option('cap_add=["NET_ADMIN"]') == ("cap_add", ["NET_ADMIN"])
    assert parse_option("tmpfs={'/tmp' = 8}") == ("tmpfs", {"/tmp": 8})
    assert parse_option("empty=") == ("empty", "")
    for text in ("NO_SUCH_VARIABLE_HERE", "=x", ""):
        with pytest.raises(click.BadParameter):
            parse_pair(text, "--env")


def test_wrong_text_format_is_refused_before_the_master_is_asked(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    module = tmp_path / "x.wat"
    module.write_text("(module")
    error = invoke("run", "--wasm", str(module)).exception
    assert isinstance(error, SpecError)
    assert "x.wat" in str(error)
