"""Agents and engines that die under containers: what goes on, what is found again, what is removed."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgerm_core.testing.processes import CONFIG, Cluster, cluster_in
from tests.plugins.executor_docker.engine import (
    IMAGE,
    IMAGE_WITHOUT_COMMAND,
    DockerEngine,
    Engine,
    PodmanEngine,
    running,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

SMALL = ("--cpus", "0.1", "--mem", "32MiB")

COUNT = (
    "n=0; while [ ! -e /data/end ]; do n=$((n+1)); echo line $n; sleep 0.1; done; echo last line; exit 7"
)
"""Prints numbered lines until there is a file in its volume, then ends with 7."""


def site_on(engine: Engine, directory: Path, ports: str = "31520-31529", more: str = "") -> Any:
    return cluster_in(
        directory,
        f'{CONFIG}\n[agent]\nresources = "ports:[{ports}]"\n'
        f'[executor.docker]\nsocket = "{engine.url}"\n{more}\n',
    )


@pytest.fixture(scope="module")
def one_engine() -> Iterator[DockerEngine]:
    with running(DockerEngine) as engine:
        yield engine


@pytest.fixture
def shared_engine(one_engine: DockerEngine) -> Iterator[DockerEngine]:
    """For tests that leave the engine alone; each finds it without containers."""
    yield one_engine
    one_engine.remove_all()


def start(cluster: Cluster, name: str, *arguments: str) -> None:
    cluster.edgerm("run", "--detach", "--name", name, *SMALL, *arguments)


def start_counting(cluster: Cluster, name: str = "svc") -> None:
    start(cluster, name, "--volume", f"{name}:/data", "--image", IMAGE, "--", "sh", "-c", COUNT)
    cluster.wait_for(name, "RUNNING")
    cluster.wait("it counts", lambda: lines(cluster, name) >= 3)


def end_counting(cluster: Cluster, name: str = "svc") -> None:
    (volume,) = cluster.directory.glob(f"*/volumes/*/{name}")
    (volume / "end").touch()


def lines(cluster: Cluster, name: str = "svc") -> int:
    return cluster.edgerm("logs", name, check=False).stdout.count("\n")


def assert_log_is_whole(cluster: Cluster, name: str = "svc") -> None:
    """Every line is there once, in order."""
    printed = cluster.edgerm("logs", name).stdout.splitlines()
    assert printed == [f"line {n}" for n in range(1, len(printed))] + ["last line"]


def only_container(engine: Engine) -> dict[str, Any]:
    (container,) = engine.containers()
    return engine.inspect(container["Id"])


# --- the agent dies -------------------------------------------------------------------------------


def test_a_container_goes_on_while_its_agent_is_killed_and_its_log_has_no_gap(
    shared_engine: DockerEngine, tmp_path: Path
) -> None:
    with site_on(shared_engine, tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start_counting(cluster)
        before = only_container(shared_engine)
        cluster.kill("gw")
        cluster.start_agent("gw", "--executor", "docker")
        row = cluster.wait_for("svc", "RUNNING")
        assert (row["attempt"], row["restarts"]) == (1, 0)
        after = only_container(shared_engine)
        assert (after["Id"], after["State"]["Pid"]) == (before["Id"], before["State"]["Pid"])
        seen = lines(cluster)
        cluster.wait("it counts on", lambda: lines(cluster) > seen)
        end_counting(cluster)
        row = cluster.wait_for("svc", "FAILED")
        assert (row["exit_code"], row["attempt"], row["restarts"]) == (7, 1, 0)
        assert_log_is_whole(cluster)
        cluster.wait("its container is gone", lambda: shared_engine.containers() == [])


def test_a_container_that_ends_while_its_agent_is_dead_is_reported_when_it_is_back(
    shared_engine: DockerEngine, tmp_path: Path
) -> None:
    with site_on(shared_engine, tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start_counting(cluster)
        cluster.kill("gw")
        end_counting(cluster)
        cluster.wait("it has ended", lambda: not only_container(shared_engine)["State"]["Running"])
        cluster.start_agent("gw", "--executor", "docker")
        row = cluster.wait_for("svc", "FAILED")
        assert (row["exit_code"], row["attempt"]) == (7, 1)
        assert_log_is_whole(cluster)


def test_containers_nobody_knows_of_are_removed_at_the_next_start_and_others_stay(
    shared_engine: DockerEngine, tmp_path: Path
) -> None:
    """As an agent leaves one that dies between starting a container and noting that it has."""
    engine = shared_engine
    with site_on(engine, tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start_counting(cluster)
        known = only_container(engine)
        cluster.kill("gw")
        name = known["Name"].strip("/")
        labels = {key: value.replace("t1", "t99") for key, value in known["Config"]["Labels"].items()}
        orphan = engine.run(name.replace("t1", "t99"), "sleep", "600", labels=labels)
        stranger = engine.run(name + "-stranger", "sleep", "600")
        cluster.start_agent("gw", "--executor", "docker")
        cluster.wait(
            "the orphan is gone", lambda: orphan not in {item["Id"] for item in engine.containers()}
        )
        assert {item["Id"] for item in engine.containers()} == {known["Id"], stranger}
        assert engine.inspect(stranger)["State"]["Running"]
        end_counting(cluster)
        assert cluster.wait_for("svc", "FAILED")["exit_code"] == 7
        engine.remove(stranger)


def test_two_agents_on_one_engine_leave_each_others_containers_alone(
    shared_engine: DockerEngine, tmp_path: Path
) -> None:
    with site_on(shared_engine, tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("a", "--executor", "docker")
        start_counting(cluster)
        cluster.start_agent("b", "--executor", "docker")
        cluster.kill("b")
        cluster.start_agent("b", "--executor", "docker")
        row = cluster.wait_for("svc", "RUNNING")
        assert (row["attempt"], row["restarts"]) == (1, 0)
        assert only_container(shared_engine)["State"]["Running"]
        end_counting(cluster)
        assert cluster.wait_for("svc", "FAILED")["exit_code"] == 7


# --- the engine goes away -------------------------------------------------------------------------


def test_a_restart_of_an_engine_with_live_restore_is_not_noticed_by_a_task(tmp_path: Path) -> None:
    with (
        running(lambda: DockerEngine(live_restore=True)) as engine,
        site_on(engine, tmp_path) as cluster,
    ):
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start_counting(cluster)
        before = only_container(engine)["Id"]
        engine.stop()
        cluster.wait("the agent notices", lambda: "engine is gone" in cluster.log("gw"))
        engine.start()
        assert only_container(engine)["Id"] == before
        seen = lines(cluster)
        cluster.wait("its log goes on", lambda: lines(cluster) > seen)
        end_counting(cluster)
        row = cluster.wait_for("svc", "FAILED")
        assert (row["exit_code"], row["attempt"], row["restarts"]) == (7, 1, 0)
        assert_log_is_whole(cluster)


def test_a_task_that_ends_while_its_engine_is_dead_is_reported_when_it_is_back(tmp_path: Path) -> None:
    with (
        running(lambda: DockerEngine(live_restore=True)) as engine,
        site_on(engine, tmp_path) as cluster,
    ):
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start_counting(cluster)
        pid = only_container(engine)["State"]["Pid"]
        engine.kill()
        end_counting(cluster)
        cluster.wait("it has ended", lambda: has_ended(pid))
        engine.start()
        row = cluster.wait_for("svc", "FAILED")
        assert (row["exit_code"], row["attempt"], row["restarts"]) == (7, 1, 0)


def test_what_an_engine_ended_when_it_was_restarted_runs_again(tmp_path: Path) -> None:
    """It is a loss and no failure of the tasks: a service starts in place, a job is placed again."""
    with running(DockerEngine) as engine, site_on(engine, tmp_path) as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start(cluster, "svc", "--restart", "always", "--image", IMAGE, "--", "sleep", "600")
        start(cluster, "job", "--image", IMAGE, "--", "sleep", "600")
        cluster.wait_for("svc", "RUNNING")
        cluster.wait_for("job", "RUNNING")
        engine.restart()
        cluster.wait("the service has been started again", lambda: cluster.task("svc")["restarts"] >= 1)
        cluster.wait("the job has been placed again", lambda: cluster.task("job")["attempt"] >= 2)
        assert cluster.wait_for("svc", "RUNNING")["attempt"] == 1
        cluster.wait_for("job", "RUNNING")
        story = {line["reason"]: line["message"] for line in cluster.rows("story", "job")}
        assert "the engine was restarted" in story["executor-unavailable"]
        cluster.wait("nothing of the first runs is left", lambda: len(engine.containers()) == 2)
        assert all(engine.inspect(item["Id"])["State"]["Running"] for item in engine.containers())


def test_an_engine_that_stays_away_loses_its_tasks_and_no_run_of_them_goes_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    with (
        running(lambda: DockerEngine(live_restore=True)) as engine,
        site_on(engine, tmp_path, more="engine_patience_s = 2.0") as cluster,
    ):
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        start(cluster, "svc", "--image", IMAGE, "--", "sleep", "600")
        cluster.wait_for("svc", "RUNNING")
        before = only_container(engine)
        pid = before["State"]["Pid"]
        engine.kill()
        cluster.wait_for("svc", "PENDING")
        assert not has_ended(pid), "with live-restore it runs on"
        engine.start()
        assert cluster.wait_for("svc", "RUNNING")["attempt"] > 1
        cluster.wait("the first run is gone", lambda: len(engine.containers()) == 1)
        assert only_container(engine)["Id"] != before["Id"]
        cluster.wait("its process is gone", lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    """Return whether a process has ended: one that only waits to be reaped has no directory any more."""
    return not Path(f"/proc/{pid}/cwd").exists()


def docker_of(cluster: Cluster) -> dict[str, Any]:
    return next(e for e in cluster.agent("gw")["executors"] if e["name"] == "docker")


def test_an_engine_that_is_not_there_yet_is_said_and_found_later(tmp_path: Path) -> None:
    with running(DockerEngine) as engine, site_on(engine, tmp_path) as cluster:
        engine.stop()
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        pid = cluster.processes["gw"].pid
        listed = cluster.edgerm("agents")
        assert "docker(unhealthy)" in listed.stdout
        assert str(engine.socket) in listed.stderr
        assert str(engine.socket) in docker_of(cluster)["problem"]
        start(cluster, "waits", "--image", IMAGE, "--", "echo", "now")
        assert cluster.task("waits")["state"] == "PENDING"
        assert "docker" in cluster.edgerm("explain", "waits").stdout
        engine.start()
        cluster.wait_for("waits", "FINISHED")
        assert cluster.processes["gw"].poll() is None
        assert cluster.processes["gw"].pid == pid
        assert cluster.edgerm("logs", "waits").stdout == "now\n"


# --- Podman ---------------------------------------------------------------------------------------


def page(port: int) -> str:
    try:
        return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read().decode())
    except OSError:
        return ""


def test_podman_runs_tasks_too(tmp_path: Path) -> None:
    with running(PodmanEngine) as engine, site_on(engine, tmp_path, "31530-31539") as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")

        script = "echo out; echo err >&2; exit 3"
        done = cluster.edgerm("run", *SMALL, "--image", IMAGE, "--", "sh", "-c", script, check=False)
        assert (done.returncode, done.stdout) == (3, "out\n")
        assert "err\n" in done.stderr
        assert cluster.edgerm("run", *SMALL, "--image", IMAGE).stdout == "hello from the image\n"

        cluster.edgerm("run", *SMALL, "--name", "nothing", "--image", IMAGE_WITHOUT_COMMAND, check=False)
        assert cluster.task("nothing")["state"] in ("FAILED", "ERROR")
        missing = ("--image", "no/such:1", "--option", "pull=never")
        cluster.edgerm("run", *SMALL, "--name", "lost", *missing, check=False)
        assert "no/such:1" in cluster.task("lost")["message"]

        start(cluster, "hog", "--image", IMAGE, "--", "sh", "-c", "exec tail /dev/zero")
        assert cluster.wait_for("hog", "FAILED")["reason"] == "out-of-memory"

        serve = "mkdir -p /tmp/www; echo served > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
        start(cluster, "web", "--port", "8080", "--image", IMAGE, "--", "sh", "-c", serve)
        (port,) = cluster.wait_for("web", "RUNNING")["resources"]["ports"]
        cluster.wait("it is served", lambda: page(int(port)) == "served\n")
        cluster.edgerm("kill", "web")
        cluster.wait_for("web", "KILLED")

        start_counting(cluster)
        before = only_container(engine)["Id"]
        cluster.kill("gw")
        cluster.start_agent("gw", "--executor", "docker")
        assert only_container(engine)["Id"] == before
        # Podman's containers do not depend on the service that answers for them.
        engine.restart()
        seen = lines(cluster)
        cluster.wait("its log goes on", lambda: lines(cluster) > seen)
        end_counting(cluster)
        row = cluster.wait_for("svc", "FAILED")
        assert (row["exit_code"], row["attempt"], row["restarts"]) == (7, 1, 0)
        assert_log_is_whole(cluster)
        cluster.wait("nothing is left", lambda: engine.containers() == [])


def test_a_container_may_listen_on_a_low_port_with_podman_too(tmp_path: Path) -> None:
    """Docker lets containers without capabilities do that by itself; many images listen on port 80."""
    with running(PodmanEngine) as engine, site_on(engine, tmp_path, "31540-31549") as cluster:
        cluster.start_master()
        cluster.start_agent("gw", "--executor", "docker")
        serve = "mkdir -p /tmp/www; echo served > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"
        start(cluster, "web", "--port", "80", "--image", IMAGE, "--", "sh", "-c", serve)
        (port,) = cluster.wait_for("web", "RUNNING", "FAILED")["resources"]["ports"]
        cluster.wait("it is served", lambda: page(int(port)) == "served\n")
