"""Containers of a real engine as tasks, all the way from the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.testing.processes import CONFIG, Cluster, cluster_in
from tests.plugins.executor_docker.engine import IMAGE, IMAGE_WITHOUT_COMMAND, DockerEngine, running

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SMALL = ("--cpus", "0.1", "--mem", "32MiB")

SERVE = (
    "mkdir -p /tmp/www; echo port $EDGERM_PORT_0 of $EDGERM_TASK_NAME > /tmp/www/index.html;"
    "exec httpd -f -p 8080 -h /tmp/www"
)
"""A web server whose page says what its environment says."""


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with running(DockerEngine) as engine:
        yield engine


@pytest.fixture(scope="module")
def site(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file: an agent on the engine, which allows one mount."""
    directory = tmp_path_factory.mktemp("docker")
    (directory / "shared").mkdir()
    config = f"""{CONFIG}
[agent]
resources = "ports:[31500-31519]"

[executor.docker]
socket = "{engine.url}"
allow_mounts = ["{directory}/shared"]
"""
    with cluster_in(directory, config) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        yield cluster


@pytest.fixture(autouse=True)
def nothing_stays(site: Cluster, engine: DockerEngine) -> Iterator[None]:
    """Whatever a test did: when its tasks have ended, the engine has no container of theirs."""
    yield
    site.end_tasks()
    site.wait("no container is left", lambda: engine.containers() == [])


def run(site: Cluster, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return site.edgerm("run", *SMALL, *arguments, check=check)


def start(site: Cluster, name: str, *arguments: str) -> None:
    run(site, "--detach", "--name", name, *arguments)


def page(url: str) -> str:
    return str(urllib.request.urlopen(url, timeout=10).read().decode())


# --- how it ends, and what it prints --------------------------------------------------------------


def test_run_prints_the_output_and_ends_with_the_containers_code(site: Cluster) -> None:
    script = "echo out; echo err >&2; exit 3"
    done = run(site, "--image", IMAGE, "--", "sh", "-c", script, check=False)
    assert done.returncode == 3
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert "placed on gw" in done.stderr


def test_the_images_own_command_runs_when_no_other_is_given(site: Cluster) -> None:
    assert run(site, "--image", IMAGE).stdout == "hello from the image\n"


def test_any_option_of_the_executor_can_be_given(site: Cluster) -> None:
    options = ("--option", f"image={IMAGE}", "--option", "user=nobody", "--option", "working_dir=/tmp")
    done = run(site, "--executor", "docker", *options, "--", "sh", "-c", "id -un; pwd")
    assert done.stdout == "nobody\n/tmp\n"


def test_a_signal_is_the_code_a_shell_would_give(site: Cluster) -> None:
    done = run(site, "--image", IMAGE, "--", "sh", "-c", "kill -KILL $$", check=False)
    assert done.returncode == 128 + 9


def test_its_environment_is_the_tasks(site: Cluster) -> None:
    script = "echo $GREETING from $EDGERM_TASK_NAME on $EDGERM_AGENT_NAME, attempt $EDGERM_ATTEMPT"
    done = run(site, "--name", "env", "--env", "GREETING=hi", "--image", IMAGE, "--", "sh", "-c", script)
    assert done.stdout == "hi from env on gw, attempt 1\n"


def follow(site: Cluster, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgerm_core.cli.main", "logs", "-f", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=site.environment,
    )


def test_followed_logs_keep_output_and_error_output_apart(site: Cluster) -> None:
    script = "n=0; while true; do n=$((n+1)); echo out $n; echo err $n >&2; sleep 0.2; done"
    start(site, "talker", "--image", IMAGE, "--", "sh", "-c", script)
    site.wait_for("talker", "RUNNING")
    for followed, word in ((follow(site, "talker"), "out"), (follow(site, "talker", "--stderr"), "err")):
        with followed:
            assert followed.stdout is not None
            assert [followed.stdout.readline() for _ in range(5)] == [f"{word} {n}\n" for n in range(1, 6)]
            followed.terminate()


def test_a_container_that_wants_more_memory_than_it_has_is_said_to(site: Cluster) -> None:
    start(site, "hog", "--image", IMAGE, "--", "sh", "-c", "exec tail /dev/zero")
    row = site.wait_for("hog", "FAILED")
    assert row["reason"] == "out-of-memory"
    assert "32 MiB" in row["message"]
    assert "out-of-memory" in site.edgerm("ps", "--all").stdout
    assert site.rows("story", "hog")[-1]["reason"] == "out-of-memory"


class EmptyRegistry(BaseHTTPRequestHandler):
    """A registry of images that has none."""

    def do_GET(self) -> None:
        here = self.path == "/v2/"
        error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
        body = b"{}" if here else json.dumps({"errors": [error]}).encode()
        self.send_response(200 if here else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    """Its address; engines speak HTTP to registries on their own machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyRegistry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_image_that_its_registry_does_not_have_is_a_failure_in_the_engines_words(
    site: Cluster, registry: str
) -> None:
    done = run(site, "--name", "lost", "--image", f"{registry}/no/such:1", check=False)
    assert done.returncode == 1
    row = site.task("lost")
    assert (row["state"], row["attempt"]) == ("FAILED", 1)
    assert f"{registry}/no/such:1" in row["message"]
    assert "manifest unknown" in row["message"]
    assert "manifest unknown" in done.stderr


def test_an_image_that_must_not_be_pulled_has_to_be_there(site: Cluster) -> None:
    image = ("--image", "no/such:1", "--option", "pull=never")
    assert run(site, "--name", "absent-image", *image, check=False).returncode == 1
    row = site.task("absent-image")
    assert row["state"] == "FAILED"
    assert "no/such:1" in row["message"]


def test_an_image_without_a_command_fails_and_the_agent_lives(site: Cluster) -> None:
    done = run(site, "--name", "nothing", "--image", IMAGE_WITHOUT_COMMAND, check=False)
    assert done.returncode == 1
    row = site.task("nothing")
    assert row["state"] in ("FAILED", "ERROR")
    assert "command" in row["message"].lower()
    done = run(site, "--image", IMAGE_WITHOUT_COMMAND, "--", "echo", "given", "here")
    assert done.stdout == "given here\n"


def test_a_program_that_is_not_in_the_image_fails(site: Cluster) -> None:
    done = run(site, "--name", "absent", "--image", IMAGE, "--", "no-such-program", check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    row = site.task("absent")
    assert row["state"] == "FAILED"
    assert "not found in the image" in row["message"]


def test_a_task_that_is_killed_may_put_its_things_in_order(site: Cluster) -> None:
    script = "trap 'echo in order; exit 0' TERM; echo ready; while true; do sleep 0.1; done"
    start(site, "tidy", "--image", IMAGE, "--", "sh", "-c", script)
    site.wait("it is ready", lambda: "ready" in site.edgerm("logs", "tidy", check=False).stdout)
    site.edgerm("kill", "tidy", "--grace", "20")
    assert site.wait_for("tidy", "KILLED")["reason"] == "killed-by-request"
    assert site.edgerm("logs", "tidy").stdout == "ready\nin order\n"


def test_a_time_limit_ends_it(site: Cluster) -> None:
    start(site, "slow", "--time-limit", "1", "--image", IMAGE, "--", "sleep", "600")
    assert site.wait_for("slow", "FAILED")["reason"] == "time-limit"


# --- ports ----------------------------------------------------------------------------------------


def test_two_tasks_publish_the_same_port_on_different_ones_of_the_agent(site: Cluster) -> None:
    granted = set()
    for name in ("web-a", "web-b"):
        start(site, name, "--port", "8080", "--image", IMAGE, "--", "sh", "-c", SERVE)
    for name in ("web-a", "web-b"):
        site.wait_for(name, "RUNNING")
        (port,) = next(row for row in site.rows("ps") if row["name"] == name)["resources"]["ports"]
        granted.add(port)
        url = f"http://127.0.0.1:{port}/"
        site.wait(f"{name} answers", lambda url=url: answers(url))  # type: ignore[misc]
        assert page(url) == f"port {port} of {name}\n"
    assert len(granted) == 2


def answers(url: str) -> bool:
    try:
        return bool(page(url))
    except OSError:
        return False


def test_without_a_port_there_is_no_network(site: Cluster) -> None:
    done = run(site, "--image", IMAGE, "--", "sh", "-c", "ls /sys/class/net")
    assert done.stdout == "lo\n"


# --- files ----------------------------------------------------------------------------------------


def test_a_named_volume_is_found_again_and_a_temporary_one_is_gone(site: Cluster) -> None:
    volumes = ("--volume", "history:/data", "--volume", "/scratch", "--image", IMAGE, "--", "sh", "-c")
    run(site, *volumes, "echo kept > /data/note; echo gone > /scratch/marker-of-the-first")
    done = run(site, *volumes, "cat /data/note; ls /scratch")
    assert done.stdout == "kept\n"
    # The agent removes what ended attempts left a moment after their end.
    marker = "marker-of-the-first"
    site.wait("no file is left", lambda: all(marker not in each[2] for each in os.walk(site.directory)))


def test_files_of_the_spec_are_there(site: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from a file\n")
    (tmp_path / "tasks.toml").write_text(
        f"""
[[task]]
name = "files"
resources = "cpus:0.1;mem:32"
files = ["data.txt"]
[[task.implementation]]
executor = "docker"
args = ["cat", "/edgerm/work/data.txt"]
options = {{ image = "{IMAGE}" }}
"""
    )
    site.edgerm("submit", str(tmp_path / "tasks.toml"), "--wait")
    assert site.edgerm("logs", "files").stdout == "from a file\n"


def test_files_of_the_machine_are_there_where_the_operator_allows_it_only(site: Cluster) -> None:
    def mount(host: str) -> tuple[str, ...]:
        return ("--option", f'mounts=[{{ host = "{host}", path = "/host" }}]', "--image", IMAGE, "--")

    shared = site.directory / "shared"
    (shared / "note").write_text("for tasks\n")
    assert run(site, *mount(str(shared)), "cat", "/host/note").stdout == "for tasks\n"
    run(site, "--name", "curious", *mount("/etc"), "cat", "/host/shadow", check=False)
    row = site.task("curious")
    assert row["state"] == "ERROR"
    assert "allow_mounts" in row["message"]
    (shared / "way-out").symlink_to("/etc")
    run(site, "--name", "sly", *mount(f"{shared}/way-out"), "cat", "/host/shadow", check=False)
    assert site.task("sly")["state"] == "ERROR"


# --- and many -------------------------------------------------------------------------------------


def test_several_instances_at_once(site: Cluster) -> None:
    script = "echo $EDGERM_TASK_INDEX"
    done = run(site, "--count", "8", "--name", "many", "--image", IMAGE, "--", "sh", "-c", script)
    assert sorted(line.split()[-1] for line in done.stdout.splitlines()) == [str(n) for n in range(8)]


def test_a_failing_container_is_restarted_in_place(site: Cluster) -> None:
    script = "echo run $EDGERM_RESTARTS; test $EDGERM_RESTARTS = 1"
    start(site, "again", "--restart", "failure", "--image", IMAGE, "--", "sh", "-c", script)
    row = site.wait_for("again", "FINISHED")
    assert (row["attempt"], row["restarts"]) == (1, 1)
    assert site.edgerm("logs", "again").stdout == "run 0\nrun 1\n"


# --- the manual -------------------------------------------------------------------------------------


def test_what_the_manual_says_works(site: Cluster, engine: DockerEngine, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    chapter = text.partition("## Docker and Podman")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ edgerm (.*)$", chapter, re.M)
    (tasks,) = (block for block in re.findall(r"```toml\n(.*?)```", chapter, re.S) if "[[task]]" in block)
    engine.import_image("busybox:latest", "")

    hello, web, user = (site.edgerm(*shlex.split(command)) for command in commands)
    assert hello.stdout == "hello\n"
    assert "uid=65534(nobody)" in user.stdout
    (tmp_path / "tasks.toml").write_text(tasks)
    file = site.edgerm("submit", str(tmp_path / "tasks.toml")).stdout.splitlines()[1]
    for task_id in (web.stdout.strip(), file.split()[0]):
        site.wait("it runs", lambda one=task_id: row_of(site, one)["state"] == "RUNNING")  # type: ignore[misc]
        (port,) = row_of(site, task_id)["resources"]["ports"]
        site.wait("it answers", lambda url=f"http://127.0.0.1:{port}/": refuses(url))  # type: ignore[misc]


def row_of(site: Cluster, task_id: str) -> dict[str, Any]:
    return next(row for row in site.tasks() if row["id"] == task_id)


def refuses(url: str) -> bool:
    """Return whether a web server is there, which has no pages."""
    try:
        page(url)
    except urllib.error.HTTPError as error:
        return error.code == 404
    except OSError:
        pass
    return False
