"""The engines that tests run on: they are real, apart from one another, and leave nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugins.executor_docker.engine import (
    IMAGE,
    IMAGE_WITHOUT_COMMAND,
    DockerEngine,
    Engine,
    PodmanEngine,
    clear_abandoned,
    left_of,
    running,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

KINDS = pytest.mark.parametrize("kind", [DockerEngine, PodmanEngine])
SERVE = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"


def serve(engine: Engine) -> str:
    """Start a web server; return its address on this machine."""
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", SERVE],
        "ExposedPorts": {"8080/tcp": {}},
        "HostConfig": {"PortBindings": {"8080/tcp": [{"HostPort": ""}]}},
    }
    container = engine.call("POST", "/containers/create", body)["Id"]
    engine.call("POST", f"/containers/{container}/start")
    ports = engine.inspect(container)["NetworkSettings"]["Ports"]
    return f"http://127.0.0.1:{ports['8080/tcp'][0]['HostPort']}/"


def page(url: str) -> str:
    for _ in range(100):
        try:
            return str(urllib.request.urlopen(url, timeout=10).read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")


@KINDS
def test_it_runs_containers_publishes_ports_and_leaves_nothing(kind: type[Engine]) -> None:
    with running(kind) as engine:
        assert {IMAGE, IMAGE_WITHOUT_COMMAND} <= {
            tag.removeprefix("localhost/").removeprefix("docker.io/")
            for image in engine.call("GET", "/images/json")
            for tag in image["RepoTags"]
        }
        assert page(serve(engine)) == "page\n"
        engine.run("stays", "sleep", "600")
        assert len(engine.containers()) == 2
        directory = engine.directory
        assert left_of(directory)
    assert left_of(directory) == {}


@KINDS
def test_even_a_killed_engine_leaves_nothing(kind: type[Engine]) -> None:
    with running(kind) as engine:
        engine.run("stays", "sleep", "600")
        directory = engine.directory
        engine.kill()
    assert left_of(directory) == {}


def test_two_engines_know_nothing_of_each_other(
    engine: DockerEngine, new_engine: Callable[..., DockerEngine]
) -> None:
    other = new_engine()
    before = len(engine.containers())
    first, second = serve(engine), serve(other)
    assert page(first) == page(second) == "page\n"
    assert len(engine.containers()) == before + 1
    assert len(other.containers()) == 1
    other.close()
    assert page(first) == "page\n"
    engine.remove_all()


@pytest.mark.parametrize("live_restore", [False, True])
def test_containers_outlive_a_restart_of_dockerd_with_live_restore_only(
    new_engine: Callable[..., DockerEngine], live_restore: bool
) -> None:
    engine = new_engine(live_restore=live_restore)
    container = engine.run("svc", "sleep", "600")
    pid = engine.inspect(container)["State"]["Pid"]
    engine.stop()
    assert Path(f"/proc/{pid}").exists() is live_restore
    engine.start()
    assert engine.inspect(container)["State"]["Running"] is live_restore
    assert engine.call("GET", "/info")["LiveRestoreEnabled"] is live_restore


def test_the_limits_that_the_executor_needs_are_enforced_here(engine: DockerEngine) -> None:
    info = engine.call("GET", "/info")
    limits = ("MemoryLimit", "CpuCfsQuota", "PidsLimit")
    assert {name: info[name] for name in limits} == dict.fromkeys(limits, True)


ABANDON = """
import os, signal
from tests.plugins.executor_docker.engine import DockerEngine
engine = DockerEngine()
engine.start()
engine.run("stays", "sleep", "600")
print(engine.directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_test_run_left_is_removed_by_the_next(engine: DockerEngine) -> None:
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", ABANDON],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        timeout=150,
        check=False,
    )
    directory = Path(done.stdout.strip())
    assert left_of(directory)
    clear_abandoned()
    assert left_of(directory) == {}
    assert engine.answers()


def test_where_it_cannot_be_tests_are_left_out_except_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install"), running(DockerEngine):
        pass
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="only root can"), running(PodmanEngine):
        pass


def test_the_api_is_there_for_any_client(engine: DockerEngine) -> None:
    status, answer = engine.request("GET", "/version")
    assert status == 200
    assert json.loads(answer)["Os"] == "linux"
