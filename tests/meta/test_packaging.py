"""What a person gets who installs the distributions: built here, installed into fresh environments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from edgerm_core.plugins import KNOWN

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
PIP = ("-m", "pip", "--disable-pip-version-check", "-qq")


def project(directory: Path) -> dict[str, object]:
    found = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    assert isinstance(found, dict)
    return found


def run(*command: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of every distribution, built from a copy of what git would take."""
    directory = tmp_path_factory.mktemp("wheels")
    for source in PROJECTS:
        copy = tmp_path_factory.mktemp("source")
        _copy(source, copy)
        run(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", directory, copy)
    return directory


def _copy(source: Path, copy: Path) -> None:
    """Copy one distribution without what builds and tests leave behind."""
    packages = [path.parent for path in source.glob("edgerm_*/__init__.py")]
    assert len(packages) == 1
    for path in packages[0].rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = copy / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (source / name).exists():
            (copy / name).write_bytes((source / name).read_bytes())


def wheel_of(wheels: Path, distribution: str) -> Path:
    (found,) = wheels.glob(f"{distribution.replace('-', '_')}-*.whl")
    return found


@pytest.mark.timeout(600)
def test_wheels_hold_every_source_file_the_marker_and_the_protocol(wheels: Path) -> None:
    for source in PROJECTS:
        name = str(project(source)["name"])
        with zipfile.ZipFile(wheel_of(wheels, name)) as wheel:
            files = set(wheel.namelist())
            entry_points = next((f for f in files if f.endswith("entry_points.txt")), None)
            assert entry_points, name
        (package,) = [path.parent for path in source.glob("edgerm_*/__init__.py")]
        sources = {str(path.relative_to(source)) for path in package.rglob("*.py")}
        for kind in ("*.cddl", "*.tmpl"):
            sources |= {str(path.relative_to(source)) for path in package.rglob(kind)}
        assert sources | {f"{package.name}/py.typed"} <= files, name
        assert not any(file.startswith("tests/") for file in files), name
    with zipfile.ZipFile(wheel_of(wheels, "edgerm-core")) as wheel:
        assert any(file.endswith("licenses/LICENSE") for file in wheel.namelist())
        assert "edgerm_core/protocol.cddl" in wheel.namelist()


def fresh_environment(directory: Path) -> Path:
    run(sys.executable, "-m", "venv", directory)
    return directory / "bin"


@pytest.mark.timeout(900)
def test_core_alone_works_and_names_what_is_missing_then_plugins_join(wheels: Path, tmp_path: Path) -> None:
    """The path of a site operator: core first, then only what this device needs."""
    scripts = fresh_environment(tmp_path / "venv")
    python, edgerm = scripts / "python", scripts / "edgerm"
    constraints = ROOT / "requirements" / "demo.txt"
    run(python, *PIP, "install", "-c", constraints, wheel_of(wheels, "edgerm-core"))

    rows = json.loads(run(edgerm, "plugins", "--json").stdout)
    assert {row["distribution"] for row in rows} == {"edgerm-core"}
    assert {row["status"] for row in rows} == {"loaded"}
    data = tmp_path / "data"
    for command in (("master",), ("agent",), ("ps",)):
        options = ("--data-dir", data) if command != ("ps",) else ()
        said = run(edgerm, *command, *options, code=1).stderr
        assert said == (
            "edgerm: plugin ws: no transport 'ws' is installed (installed: memory); "
            "install it with: pip install edgerm-transport-ws\n"
        )
    assert "pip install edgerm-demo" in run(edgerm, "demo", code=2).stderr
    checks = {row["name"]: row for row in json.loads(run(edgerm, "doctor", "--json").stdout)}
    assert checks["executor-wasm"]["status"] == "missing"

    plugins = [wheel_of(wheels, "edgerm-transport-ws"), wheel_of(wheels, "edgerm-executor-wasm")]
    run(python, *PIP, "install", "-c", constraints, *plugins)
    rows = json.loads(run(edgerm, "plugins", "--json").stdout)
    assert {row["status"] for row in rows} == {"loaded"}
    provides = {what for row in rows for what in row["provides"]}
    assert {"transport ws", "executor wasm"} <= provides
    assert "executor process" not in provides
    checks = {row["name"]: row for row in json.loads(run(edgerm, "doctor", "--json").stdout)}
    assert checks["executor-wasm"]["status"] == "ok"
    assert checks["transport-ws"]["status"] == "ok"
    # The executor that is not there is named when the agent is asked for it.
    said = run(edgerm, "agent", "--data-dir", data, "--executor", "process", code=1).stderr
    assert "pip install edgerm-executor-process" in said


def test_every_distribution_a_sentence_tells_to_install_is_one_of_ours() -> None:
    ours = {project(path)["name"] for path in PROJECTS}
    assert set(KNOWN.values()) <= ours


def test_every_plugin_declares_one_entry_point_to_a_plugin_module() -> None:
    for path in PROJECTS[1:]:
        entry_points = project(path)["entry-points"]
        assert isinstance(entry_points, dict)
        package = f"edgerm_{path.name}"
        assert list(entry_points["edgerm"].values()) == [f"{package}.plugin"]


PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9a-z.]*")


def pins(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            assert PIN.fullmatch(line), f"{name}: {line!r} is not an exact version"
            package, _, version = line.partition("==")
            assert found.get(package, version) == version
            found[package] = version
    return found


def test_requirements_are_exact_and_hold_what_the_distributions_need() -> None:
    def needed(path: Path) -> set[str]:
        listed = project(path)["dependencies"]
        assert isinstance(listed, list)
        names = {re.split(r"[<>=!~;\[ ]", text)[0].lower().replace("_", "-") for text in listed}
        return {name for name in names if not name.startswith("edgerm-")}

    assert needed(ROOT) <= set(pins("core.txt"))
    demo = ("transport_ws", "executor_process", "executor_wasm", "scheduler_drf", "demo")
    for path in PROJECTS:
        assert needed(path) <= set(pins("demo.txt" if path.name in demo else "dev.txt")), path
    assert set(pins("demo.txt")) <= set(pins("dev.txt"))
