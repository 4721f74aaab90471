"""Friendly arguments become exact specs, and mistakes are named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.attributes import Constraint, Preference
from edgerm_core.client import Draft, container, process, task, wasm
from edgerm_core.client.specs import as_draft, compile_wat
from edgerm_core.errors import BlobError, EdgermError, ResourceError, SpecError
from edgerm_core.ids import blob_id
from edgerm_core.resources import DeviceRequest, ResourceRequest
from edgerm_core.tasks import Implementation, RestartPolicy, TaskSpec

MODULE = b"\0asm\1\0\0\0"
WAT = '(module (func (export "f") (param i32) (result i32) local.get 0))'


def test_a_process_is_named_after_its_command() -> None:
    draft = task(process("/bin/echo", "hello"))
    assert draft.spec == TaskSpec("echo", (Implementation("process", args=("/bin/echo", "hello")),))
    assert task(process("./my tool!")).spec.name == "my-tool-"
    assert task(process("..")).spec.name == "task"


def test_a_container_is_named_after_its_image() -> None:
    draft = task(
        container("registry.example:5000/site/web:2", "httpd", "-f", ports=[80]), resources="ports:1"
    )
    options = {"image": "registry.example:5000/site/web:2", "ports": [80]}
    made = Implementation("docker", args=("httpd", "-f"), options=options)
    assert (draft.spec.name, draft.spec.implementations) == ("web", (made,))
    assert task(container("busybox@sha256:" + "0" * 64)).spec.name == "busybox"


def test_every_option_finds_its_place() -> None:
    spec = task(
        process("true"),
        name="all",
        cpus=0.5,
        mem="64MiB",
        disk=10,
        resources={"ports": 2},
        devices=["camera", DeviceRequest("bme280", 2)],
        env={"A": "b"},
        constraints=["zone==a", Constraint("floor", ">=", "2")],
        preferences=["os==linux", ("arch==arm64", 3.0), Preference(Constraint("gpu", "exists"))],
        files={"in/data": b"123"},
        restart="failure",
        time_limit_s=9,
        kill_grace_s=1,
        instances=4,
    ).spec
    assert spec.resources == ResourceRequest(
        {"cpus": 500, "mem": 64_000, "disk": 10_000, "ports": 2000},
        devices=(DeviceRequest("camera"), DeviceRequest("bme280", 2)),
    )
    assert spec.constraints == (Constraint("zone", "==", "a"), Constraint("floor", ">=", "2"))
    assert [p.weight for p in spec.preferences] == [1.0, 3.0, 1.0]
    assert spec.files[0].blob == blob_id(b"123")
    assert spec.restart == RestartPolicy(on="failure")
    assert (spec.time_limit_s, spec.kill_grace_s, spec.instances) == (9, 1, 4)


def test_a_module_is_referred_to_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mean.wasm"
    path.write_bytes(MODULE)
    for module in (MODULE, path, str(path)):
        draft = task(wasm(module, 1, 2.5, function="mean"))
        [implementation] = draft.spec.implementations
        assert implementation == Implementation("wasm", blob_id(MODULE), (1, 2.5), {"function": "mean"})
        assert [source.id for source in draft.blobs] == [blob_id(MODULE)]
        assert draft.spec.name == "mean"
    assert task(wasm(path)).spec.implementations[0].options == {}


def test_text_format_is_compiled(tmp_path: Path) -> None:
    path = tmp_path / "f.wat"
    path.write_text(WAT)
    compiled = compile_wat(path)
    assert isinstance(compiled, bytes)
    assert compiled.startswith(MODULE[:4])
    assert compile_wat(WAT.encode()) == compiled
    with pytest.raises(SpecError, match="neither a WASM module nor WASM text"):
        compile_wat(b"(modul")


def test_text_format_without_wasmtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    with pytest.raises(SpecError, match="pip install wasmtime"):
        compile_wat(WAT.encode())
    assert compile_wat(MODULE) == MODULE


def test_several_implementations_keep_their_order() -> None:
    draft = as_draft([wasm(MODULE), container("busybox")], cpus=1)
    assert [i.executor for i in draft.spec.implementations] == ["wasm", "docker"]
    assert draft.spec.resources.quantities == {"cpus": 1000}


def test_a_whole_task_takes_no_more_options() -> None:
    spec = TaskSpec("x", (Implementation("process", args=("true",)),))
    assert as_draft(spec) == Draft(spec)
    assert as_draft(Draft(spec)) == Draft(spec)
    with pytest.raises(SpecError, match=r"cpus: give these to task\(\)"):
        as_draft(spec, cpus=1)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: process(), SpecError, "needs a command"),
        (lambda: container(""), SpecError, "needs an image"),
        (lambda: task(), SpecError, "needs an implementation"),
        (lambda: task(process("true"), stop_after_s=2), SpecError, "no option stop_after_s; known: .*disc"),  # type: ignore[call-arg]
        (lambda: task(process("true"), mem="lots"), ResourceError, "mem"),
        (lambda: task(process("true"), cpus=1, resources="cpus:2"), SpecError, "given by name and in"),
        (lambda: task(process("true"), constraints=["zone is a"]), SpecError, "not a constraint"),
        (lambda: task(process("true"), name="no good"), SpecError, "not a name"),
        (lambda: task(process("true"), files={"../up": b""}), SpecError, r"without '\.\.'"),
        (lambda: wasm("nowhere.wasm"), BlobError, "cannot be read"),
        (lambda: wasm("nowhere.wat"), SpecError, "cannot be read"),
    ],
)
def test_mistakes_are_named(make: Any, error: type[EdgermError], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
