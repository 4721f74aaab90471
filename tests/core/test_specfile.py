from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerm_core.attributes import Constraint, Preference
from edgerm_core.errors import SpecError
from edgerm_core.ids import blob_id
from edgerm_core.resources import DeviceRequest
from edgerm_core.specfile import load_specfile, parse_specfile, read_task
from edgerm_core.tasks import DisconnectPolicy, File, ReschedulePolicy, RestartPolicy, TaskSpec, Volume

EVERYTHING = """
[[task]]
name = "analyse"
resources = { cpus = 0.5, mem = "64MiB", ports = 2 }
devices = [{ type = "camera", count = 2, constraints = ["resolution>=1080"] }]
constraints = ["os==linux", "zone in a,b"]
preferences = ["floor>=2", { constraint = "exists gpu.model", weight = 3.0 }]
env = { MODE = "fast" }
files = ["model.bin", { path = "bin/run.sh", source = "run.sh", executable = true }]
volumes = [{ path = "data", name = "history" }, { path = "tmp", read_only = true }]
restart = { on = "failure", attempts = 5 }
reschedule = { failures = 2 }
disconnect = { lost_after_s = 60, replace = false }
time_limit_s = 600
kill_grace_s = 10
instances = 4

[[task.implementation]]
executor = "wasm"
module = "analyse.wat"
args = ["--fast", 2, 2.5]
options = { function = "analyse" }

[[task.implementation]]
executor = "process"
args = ["analyse"]

[[task]]
name = "plain"
resources = "cpus:1;mem:64"
implementation = [{ executor = "process", args = ["true"] }]
"""

MINIMAL = '[[task]]\nname = "a"\nimplementation = [{ executor = "process", args = ["true"] }]\n'


def test_every_key_reaches_the_spec(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    (tmp_path / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "analyse.wat").write_text('(module (func (export "analyse")))')
    path = tmp_path / "tasks.toml"
    path.write_text(EVERYTHING)
    full, plain = load_specfile(path)
    spec = full.spec
    assert spec.name == "analyse"
    assert str(spec.resources) == "cpus:0.5;mem:64;ports:2;device:2xcamera"
    assert spec.resources.devices == (
        DeviceRequest("camera", 2, (Constraint("resolution", ">=", "1080"),)),
    )
    assert spec.constraints == (Constraint("os", "==", "linux"), Constraint("zone", "in", "a,b"))
    assert spec.preferences == (
        Preference(Constraint("floor", ">=", "2")),
        Preference(Constraint("gpu.model", "exists"), 3.0),
    )
    assert spec.env == {"MODE": "fast"}
    assert spec.files == (
        File("model.bin", blob_id(b"model")),
        File("bin/run.sh", blob_id(b"#!/bin/sh\n"), True),
    )
    assert spec.volumes == (Volume("data", "history"), Volume("tmp", "", True))
    assert spec.restart == RestartPolicy("failure", 5)
    assert spec.reschedule == ReschedulePolicy(2)
    assert spec.disconnect == DisconnectPolicy(60.0, False)
    assert (spec.time_limit_s, spec.kill_grace_s, spec.instances) == (600.0, 10.0, 4)
    wasm, process = spec.implementations
    assert (wasm.executor, wasm.args, wasm.options) == ("wasm", ("--fast", 2, 2.5), {"function": "analyse"})
    assert (process.executor, process.blob) == ("process", None)
    assert wasm.blob == full.blobs[0].id
    assert {blob.id for blob in full.blobs} == spec.blobs()
    assert type(spec.restart) is RestartPolicy
    assert str(plain.spec.resources) == "cpus:1;mem:64"


def test_what_is_left_out_has_the_defaults_of_a_spec() -> None:
    (draft,) = parse_specfile(MINIMAL, Path())
    expected = TaskSpec(name="a", implementations=draft.spec.implementations)
    assert draft.spec == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "tasks.toml: missing key `task`"),
        ("task = []", "tasks.toml: task: expected at least one [[task]]"),
        ("a b", "tasks.toml: not TOML: "),
        ("x = 1\n" + MINIMAL, "tasks.toml: unknown key `x`"),
        (MINIMAL.replace('"a"', "3"), "tasks.toml: task[0].name: expected text, got a whole number"),
        (MINIMAL.replace('"a"', '"a b"'), "tasks.toml: task[0]: task name 'a b' is not a name"),
        (MINIMAL.replace("args", "argv"), "tasks.toml: task[0].implementation[0]: unknown key `argv`"),
        (MINIMAL + "instances = 0", "tasks.toml: task[0]: task a: instances must be 1"),
        (MINIMAL + 'time_limit_s = "5"', "tasks.toml: task[0].time_limit_s: expected a number, got text"),
        (MINIMAL + "resources = 3", "tasks.toml: task[0].resources: expected text or a table, got a whole"),
        (MINIMAL + 'resources = "cpus"', "tasks.toml: task[0].resources: 'cpus' is not a resource"),
        (MINIMAL + "resources = { cpus = -1 }", "tasks.toml: task[0].resources: cpus: "),
        (MINIMAL + 'constraints = ["os"]', "tasks.toml: task[0].constraints[0]: 'os' is not a constraint"),
        (MINIMAL + 'preferences = ["os"]', "tasks.toml: task[0].preferences[0]: 'os' is not a constraint"),
        (MINIMAL + "restart = { on = 'often' }", "tasks.toml: task[0].restart.on: not a valid choice"),
        (MINIMAL + "restart = { often = 1 }", "tasks.toml: task[0].restart: unknown key `often`"),
        (MINIMAL + 'devices = [{ type = "" }]', "tasks.toml: task[0].devices[0]: device ''"),
        (MINIMAL + "env = { A = 1 }", "tasks.toml: task[0].env.*: expected text"),
        (MINIMAL + 'files = ["none"]', "tasks.toml: task[0].files[0]: "),
        (MINIMAL.replace("args", 'module = "none.wasm", args'), "task[0].implementation[0].module: "),
        (MINIMAL.replace("args", 'module = "none.wat", args'), "task[0].implementation[0].module: "),
    ],
)
def test_wrong_file_is_refused_with_the_path_of_the_key(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_specfile(text, Path("nowhere"), "tasks.toml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_specfile(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="cannot be read"):
        load_specfile(tmp_path / "binary")


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
def test_any_text_is_a_file_or_a_spec_error(text: str) -> None:
    try:
        parse_specfile(text, Path("nowhere"))
    except SpecError:
        pass


def test_a_task_inside_another_file_is_read_as_in_a_task_file(tmp_path: Path) -> None:
    text = '[[task]]\nname = "t"\nresources = "cpus:1"\nimplementation = [{ executor = "process" }]\n'
    (draft,) = parse_specfile(text, tmp_path)
    table = {"name": "t", "resources": "cpus:1", "implementation": [{"executor": "process"}]}
    assert read_task(table, tmp_path, "plan: task") == draft
    with pytest.raises(SpecError, match=r"^plan: task\.implementation\[0\]: unknown key `colour`"):
        read_task({"name": "t", "implementation": [{"executor": "x", "colour": 1}]}, tmp_path, "plan: task")
    with pytest.raises(SpecError, match=r"^plan: task: missing key `name`"):
        read_task({"implementation": []}, tmp_path, "plan: task")
