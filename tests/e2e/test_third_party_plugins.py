"""Plugins that are not ours: the worked examples, and one of each kind as `edgerm plugin new` writes it.

They are installed into an environment that has edgerm-core, the WebSocket transport, pytest and what
these need, and nothing else: so what a plugin's author must install is what the documents say.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from edgerm_core.cli.new_plugin import KINDS
from edgerm_core.testing import processes
from edgerm_core.testing.processes import CONFIG, WAIT_S, Cluster, cluster_in

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/plugins/*/pyproject.toml"))
NAME = "outside"
"""What the generated plugins are called."""

WRITTEN = [f"edgerm-{kind}-{NAME}".replace("_", "-") for kind in KINDS]
FILES_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*_cache")


def run(*command: object, **options: Any) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


class Environment:
    """A virtual environment without a way to the network or to this one's packages."""

    def __init__(self, directory: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", directory)
        self.bin = directory / "bin"
        self._wheels = directory / "wheels"
        (self._site,) = directory.glob("lib/python*/site-packages")

    def lend(self, requirement: str) -> None:
        """Let it use what this environment has for what an installed distribution of ours requires."""
        found: dict[str, importlib.metadata.Distribution] = {}
        self._add_needed(Requirement(requirement), found)
        for name, distribution in found.items():
            if name.startswith("edgerm-"):
                continue
            for file in distribution.files or ():
                top = file.parts[0]
                there = self._site / top
                if top not in ("..", "__pycache__") and not there.exists():
                    there.symlink_to(Path(str(distribution.locate_file(top))))

    def _add_needed(
        self, requirement: Requirement, found: dict[str, importlib.metadata.Distribution]
    ) -> None:
        """Add to `found` what pip would install."""
        name = requirement.name.lower()
        installed = importlib.metadata.Distribution.discover(name=name, path=[str(self._site)])
        distribution = next(iter(installed), None) or importlib.metadata.distribution(name)
        found[name] = distribution
        for line in distribution.requires or ():
            below = Requirement(line)
            wanted = below.marker is None or any(
                below.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            )
            if wanted and below.name.lower() not in found:
                self._add_needed(below, found)

    def install(self, *sources: Path) -> None:
        """Build and install distributions, as a release would."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
        offline = ("--no-deps", "--no-index")
        wheels = self._wheels / str(len(list(self._wheels.glob("*"))))
        run(*pip, "wheel", *offline, "--no-build-isolation", "-w", wheels, *sources)
        run(*pip, "--python", self.bin / "python", "install", *offline, *sorted(wheels.glob("*.whl")))


def copy(source: Path, directory: Path) -> Path:
    """Return a copy of a distribution's sources; building leaves things behind."""
    target = directory / source.name
    if source == ROOT:
        shutil.copytree(ROOT / "edgerm_core", target / "edgerm_core", ignore=FILES_LEFT_OUT)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, target)
    else:
        shutil.copytree(source, target, ignore=FILES_LEFT_OUT)
    return target


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugins' sources are, by the name of their distribution."""
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Environment:
    """The environment of a plugin's author and user."""
    environment = Environment(tmp_path_factory.mktemp("outside") / "venv")
    ours = tmp_path_factory.mktemp("ours")
    environment.install(copy(ROOT, ours), copy(ROOT / "plugins" / "transport_ws", ours))
    environment.lend("edgerm-core[testing]")
    environment.lend("edgerm-transport-ws")
    for kind in KINDS:
        run(environment.bin / "edgerm", "plugin", "new", kind, NAME, "--directory", sources)
    for name in EXAMPLES:
        copy(ROOT / "examples" / "plugins" / name, sources)
    build = tmp_path_factory.mktemp("build")
    environment.install(*(copy(sources / name, build) for name in (*WRITTEN, *EXAMPLES)))
    return environment


def test_nothing_is_there_but_what_the_documents_say(outside: Environment) -> None:
    script = "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))"
    there = set(run(outside.bin / "python", "-c", script).split())
    assert {"edgerm-core", "pytest", "anyio", *WRITTEN, *EXAMPLES} <= there
    assert not {"hypothesis", "pytest-timeout", "pytest-xdist", "wasmtime", "setuptools", "trio"} & there


def test_every_plugin_is_listed_with_its_distribution_and_version(outside: Environment) -> None:
    rows = json.loads(run(outside.bin / "edgerm", "plugins", "--json"))
    by_distribution = {row["distribution"]: row for row in rows}
    for name in (*WRITTEN, *EXAMPLES):
        row = by_distribution[name]
        assert (row["status"], row["version"], row["problem"]) == ("loaded", "0.1.0", "")
        assert row["name"] == name.removeprefix("edgerm-")
    assert by_distribution["edgerm-executor-script"]["provides"] == ["executor script"]
    assert f"edgerm-store-{NAME}" in run(outside.bin / "edgerm", "plugins")


@pytest.mark.parametrize("name", [*WRITTEN, *EXAMPLES])
def test_its_own_tests_pass_where_it_is_installed(
    name: str, outside: Environment, sources: Path, tmp_path: Path
) -> None:
    """Without its sources: only what was installed can be imported. Warnings are errors."""
    shutil.copytree(sources / name / "tests", tmp_path / "tests", ignore=FILES_LEFT_OUT)
    shutil.copy(sources / name / "pyproject.toml", tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = (outside.bin / "python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    output = run(*command, cwd=tmp_path, env=environment)
    assert " passed" in output


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_formatted_linted_and_typed_by_their_own_settings(
    name: str, tmp_path: Path
) -> None:
    directory = copy(ROOT / "examples" / "plugins" / name, tmp_path)
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    for tool in (("ruff", "check", "--no-cache"), ("ruff", "format", "--no-cache", "--check"), ("mypy",)):
        run(sys.executable, "-m", *tool, ".", cwd=directory, env=environment)


def test_the_commands_that_the_page_shows_work(outside: Environment, tmp_path: Path) -> None:
    """Those marked to be run, in their order; what the others install is installed without a network."""
    text = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    begin, work = re.findall(r"^```sh run\n(.*?)^```$", text, re.M | re.S)
    environment = {**os.environ, "PATH": f"{outside.bin}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    run("bash", "-ec", begin, cwd=tmp_path, env=environment)
    (written,) = tmp_path.iterdir()
    assert f'pip install -e "./{written.name}[test]"\n' in text
    outside.install(copy(written, tmp_path / "build"))
    output = run("bash", "-ec", work, cwd=tmp_path, env=environment)
    assert " passed" in output
    assert "executor-nap" in output


# --- with real daemons ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed_command(outside: Environment) -> Iterator[None]:
    """Clusters run the installed `edgerm`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "EDGERM", (str(outside.bin / "edgerm"),))
        yield


def submit(cluster: Cluster, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = cluster.directory / "tasks.toml"
    path.write_text(text)
    return cluster.edgerm("submit", *options, str(path), check=False)


SCRIPTS = """
[[task]]
name = "greets"
resources = "cpus:0.1;mem:16MiB"
[[task.implementation]]
executor = "script"
args = ["world"]
options = { script = "echo hello $1; sleep 300 &" }

[[task]]
name = "dawdles"
resources = "cpus:0.1;mem:16MiB"
[[task.implementation]]
executor = "script"
options = { script = "sleep 300", time_limit_s = 0.5 }

[[task]]
name = "waits"
resources = "cpus:9999"
[[task.implementation]]
executor = "script"
options = { script = "true" }
"""


@pytest.mark.usefixtures("installed_command")
def test_the_examples_work_in_a_real_cluster(tmp_path: Path) -> None:
    more = "[scheduler.strict-priority]\nroles = { batch = -5 }\n[executor.script]\ntime_limit_s = 60\n"
    with cluster_in(tmp_path, CONFIG + more) as cluster:
        cluster.start_master("--scheduler", "strict-priority")
        cluster.start_agent("a1", "--executor", "script")
        submitted = submit(cluster, SCRIPTS)
        assert submitted.returncode == 0, submitted.stderr
        cluster.wait_for("greets", "FINISHED")
        assert cluster.edgerm("logs", cluster.task("greets")["id"]).stdout == "hello world\n"
        late = cluster.wait_for("dawdles", "FAILED")
        assert late["reason"] == "time-limit"
        assert "0.5 s" in late["message"]
        text = cluster.edgerm("explain", cluster.task("waits")["id"]).stdout
        assert "priority 0 (0 by no role); 0 waiting tasks come first" in text
        cluster.edgerm("kill", cluster.task("waits")["id"])


@pytest.mark.usefixtures("installed_command")
def test_one_of_each_kind_works_in_a_real_cluster(tmp_path: Path) -> None:
    """A master and an agent of which every part that can be replaced is a generated one."""
    changes = tmp_path / "changes.jsonl"
    more = f"""
store = "{NAME}"
scheduler = "{NAME}"
[observer.{NAME}]
path = "{changes}"
[device_driver.{NAME}]
"""
    task = f"""
[[task]]
name = "reads"
resources = "cpus:0.1;mem:16MiB"
devices = [{{ type = "thermometer" }}]
[[task.implementation]]
executor = "{NAME}"
args = ["sh", "-c", "echo $EDGERM_THERMOMETER"]
"""
    with cluster_in(tmp_path, CONFIG + more, schemes=(NAME,)) as cluster:
        cluster.start_master()
        cluster.start_agent("a1", "--executor", NAME)
        done = submit(cluster, task, "--wait")
        assert done.returncode == 0, done.stdout + done.stderr
        assert cluster.edgerm("logs", "reads").stdout == f"{NAME}-0\n"
        assert cluster.edgerm(NAME, "--all").stdout == "     1 FINISHED\n"
        assert cluster.edgerm(NAME).stdout == "no tasks\n"
        rows = [json.loads(line) for line in changes.read_text().splitlines()]
        assert [row["state"] for row in rows if row["kind"] == "task"][-1] == "FINISHED"
        assert cluster.stop("master") == 0
        cluster.start_master()
        assert cluster.task("reads")["state"] == "FINISHED", "the store has kept it"
        cluster.wait("the agent is back", lambda: cluster.agent("a1").get("connected") is True, WAIT_S)
        assert list((tmp_path / "master").glob("*.records"))
