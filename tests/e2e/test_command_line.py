"""Every command against a real cluster: what it prints, and the code it ends with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgerm_core.testing.processes import Cluster, cluster_in

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SMALL = ("--cpus", "0.1", "--mem", "32MiB")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file: a gateway and a small node."""
    with cluster_in(tmp_path_factory.mktemp("site")) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--attribute", "zone=a")
        cluster.start_agent("node", "--executor", "wasm", "--attribute", "zone=b")
        yield cluster


def test_run_prints_the_output_and_ends_with_the_tasks_code(site: Cluster) -> None:
    script = "echo out; echo err >&2; exit 3"
    done = site.edgerm("run", *SMALL, "--process", "--", "sh", "-c", script, check=False)
    assert done.returncode == 3
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert "placed on gw" in done.stderr


def test_a_signal_is_the_code_a_shell_would_give(site: Cluster) -> None:
    done = site.edgerm("run", *SMALL, "--process", "--", "sh", "-c", "kill -TERM $$", check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_environment_name_and_constraint(site: Cluster) -> None:
    done = site.edgerm(
        "run", *SMALL, "--name", "env", "--env", "GREETING=hi there", "--constraint", "zone==a",
        "--process", "--", "sh", "-c", "echo $GREETING from $EDGERM_TASK_NAME on $EDGERM_AGENT_NAME",
    )  # fmt: skip
    assert done.stdout == "hi there from env on gw\n"


def test_a_wasm_function_returns_its_value_and_a_trap_its_reason(site: Cluster, tmp_path: Path) -> None:
    (tmp_path / "math.wat").write_text(
        '(module (func (export "div") (param i32 i32) (result i32)'
        " (i32.div_s (local.get 0) (local.get 1))))"
    )
    run = ("run", *SMALL, "--wasm", str(tmp_path / "math.wat"), "--function", "div", "--arg", "42", "--arg")
    assert site.edgerm(*run, "6").stdout == "7\n"
    done = site.edgerm(*run, "0", check=False)
    assert done.returncode == 1
    assert "trap" in done.stderr
    assert "divide by zero" in done.stderr


def test_several_instances_are_told_apart(site: Cluster) -> None:
    done = site.edgerm(
        "run",
        *SMALL,
        "--count",
        "3",
        "--name",
        "many",
        "--process",
        "--",
        "sh",
        "-c",
        "echo $EDGERM_TASK_INDEX",
    )
    lines = sorted(done.stdout.splitlines())
    assert [line.split()[-1] for line in lines] == ["0", "1", "2"]
    assert len({line.split()[0] for line in lines}) == 3


def test_the_life_of_a_submitted_task(site: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from a file\n")
    (tmp_path / "tasks.toml").write_text(
        """
[[task]]
name = "life"
resources = { cpus = 0.1, mem = "32MiB", ports = 1 }
constraints = ["zone==a"]
env = { WHO = "me" }
files = [{ path = "data.txt", source = "data.txt" }]

[[task.implementation]]
executor = "process"
args = ["sh", "-c", "cat data.txt; echo $WHO has port $EDGERM_PORT_0; sleep 600"]
"""
    )
    done = site.edgerm("submit", str(tmp_path / "tasks.toml"), "--json")
    assert json.loads(done.stdout)
    row = site.wait_for("life", "RUNNING")
    port = row["resources"]["ports"][0]
    follow = subprocess.Popen(
        [sys.executable, "-m", "edgerm_core.cli.main", "logs", "-f", "life"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=site.environment,
    )
    assert follow.stdout is not None
    assert follow.stdout.readline() == "from a file\n"
    assert follow.stdout.readline() == f"me has port {port}\n"
    assert "runs on gw" in site.edgerm("explain", "life").stdout
    site.edgerm("kill", "life", "--grace", "1")
    site.wait_for("life", "KILLED")
    assert follow.wait(30) == 0
    follow.stdout.close()
    story = [(row["state"], row["reason"]) for row in site.rows("story", "life")]
    states = list(dict.fromkeys(state for state, _ in story))
    assert states == ["PENDING", "STAGING", "STARTING", "RUNNING", "KILLING", "KILLED"]
    assert ("STARTING", "fetching") in story, "its file had to be brought to the agent"
    assert story[-1][1] == "killed-by-request"


def test_draining_empties_an_agent_and_undo_brings_it_back(site: Cluster) -> None:
    site.edgerm("run", *SMALL, "--detach", "--name", "stays", "--process", "--", "sleep", "600")
    site.wait_for("stays", "RUNNING")
    site.edgerm("drain", "gw")
    site.wait("it is drained", lambda: site.agent("gw")["state"] == "DRAINING")
    # Nowhere else has the process executor: it waits.
    site.wait_for("stays", "PENDING")
    assert "draining" in site.edgerm("explain", "stays").stdout
    site.edgerm("drain", "gw", "--undo")
    assert site.wait_for("stays", "RUNNING")["attempt"] == 2
    site.edgerm("kill", "stays")
    site.wait_for("stays", "KILLED")


def test_listings_are_json_for_machines_and_tables_for_people(site: Cluster) -> None:
    agents = {row["name"]: row for row in site.rows("agents")}
    assert {e["name"] for e in agents["gw"]["executors"] if e["healthy"]} >= {"process", "wasm"}
    assert {e["name"] for e in agents["node"]["executors"]} == {"wasm"}
    assert agents["gw"]["attributes"]["zone"] == "a"
    assert all(row["name"] for row in site.rows("frameworks"))
    assert {"memory", "transport-ws"} <= {row["name"] for row in site.rows("plugins")}

    def all_is_well() -> bool:
        checks = {row["name"]: row["status"] for row in site.rows("doctor")}
        return bool(checks["executor-wasm"] == checks["master"] == "ok")

    site.wait("the doctor finds a master, which it gives 2 s to answer", all_is_well)
    for listing in ("agents", "frameworks", "ps", "plugins", "doctor"):
        assert "\033" not in site.edgerm(listing).stdout


def test_an_interrupted_run_kills_its_task(site: Cluster) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "edgerm_core.cli.main", "run", *SMALL, "--name", "long", "--process", "--",
         "sleep", "600"],
        stderr=subprocess.PIPE,
        text=True,
        env=site.environment,
    )  # fmt: skip
    site.wait_for("long", "RUNNING")
    assert run.stderr is not None
    with run.stderr:
        # Then it is ready to be interrupted.
        assert any("placed on gw" in line for line in run.stderr)
        run.send_signal(signal.SIGINT)
        assert any("ending 1 task" in line for line in run.stderr)
        run.stderr.read()
    assert run.wait(60) != 0
    assert site.wait_for("long", "KILLED")["reason"] == "killed-by-request"


def test_unknown_things_are_one_sentence(site: Cluster) -> None:
    for arguments in (("drain", "nobody"), ("story", "nothing"), ("ps", "--framework", "nobody")):
        done = site.edgerm(*arguments, check=False)
        assert done.returncode == 1, arguments
        assert done.stderr.count("\n") == 1, done.stderr
        assert arguments[-1] in done.stderr
